"""Folders of networks: scanning, finding by name, and keeping loaded ones."""

from .entry import Entry
from .folders import Library
from .hashing import Hashes
from .inspection import Inspection, inspect

__all__ = ["Entry", "Hashes", "Inspection", "Library", "inspect"]
