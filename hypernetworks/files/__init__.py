"""Hypernetwork files: every variant is read safely, and files are written atomically."""

from .describing import Description, read_description
from .reading import SUFFIXES, read
from .writing import write

__all__ = ["SUFFIXES", "Description", "read", "read_description", "write"]
