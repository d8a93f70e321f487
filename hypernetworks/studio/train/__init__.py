"""The tab that trains: from its fields to a run, what it shows meanwhile, and the network's way to
the library.
"""
