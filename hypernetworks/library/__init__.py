"""Folders of networks: scanning, finding by name, and keeping loaded ones."""

from .entry import Entry
from .folders import Library
from .inspection import Inspection, inspect

__all__ = ["Entry", "Inspection", "Library", "inspect"]
