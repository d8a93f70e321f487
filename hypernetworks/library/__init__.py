"""Folders of networks: scanning, finding by name, and keeping loaded ones."""

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
