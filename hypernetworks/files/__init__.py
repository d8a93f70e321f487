"""Bytes <-> structure and tensors: every variant of hypernetwork file, read safely and written atomically."""

from .reading import SUFFIXES, read
from .writing import write

__all__ = ["SUFFIXES", "read", "write"]
