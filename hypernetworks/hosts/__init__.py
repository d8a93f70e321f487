"""One adapter per host: which UNet is live, when a generation starts, which step it is at, when it ends."""
