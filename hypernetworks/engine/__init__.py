"""What a hypernetwork is and what it does to a context. Needs torch, except :mod:`.multiplier`."""
