"""The built-in implementation, of hosts that have it."""
