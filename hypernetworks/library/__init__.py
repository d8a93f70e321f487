"""Folders of networks: scanning, finding by name, and keeping loaded ones."""

from .entry import Entry
from .folders import Library

__all__ = ["Entry", "Library"]
