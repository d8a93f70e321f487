"""Folders of networks: scanned, found by name, and kept in memory once they are loaded."""

from .entry import Entry
from .folders import Library
from .hashing import Hashes
from .inspection import Inspection, inspect
from .reporting import norm_rows, report_rows

__all__ = [
    "Entry",
    "Hashes",
    "Inspection",
    "Library",
    "inspect",
    "norm_rows",
    "report_rows",
]
