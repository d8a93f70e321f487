"""Bytes <-> structure and tensors: every variant of hypernetwork file, read safely and written atomically."""

from .describing import Description, describe
from .reading import SUFFIXES, read
from .writing import write

__all__ = ["SUFFIXES", "Description", "describe", "read", "write"]
