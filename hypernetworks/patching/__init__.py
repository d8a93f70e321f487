"""How a foreign UNet is altered and restored, without importing any host."""

from .handle import Handle, apply
from .sites import Site, find_sites

__all__ = ["Handle", "Site", "apply", "find_sites"]
