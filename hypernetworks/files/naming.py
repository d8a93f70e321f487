"""What a file may be called, on every system."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath

DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)\s*(\..*)?", re.IGNORECASE)
"""File names that are devices on Windows, with any suffix: a file of that name can't be kept or copied there."""


def is_plain(name: str) -> bool:
    """Whether a file name is one part of a path on every system, and not hidden."""
    return PurePosixPath(name).name == name == PureWindowsPath(name).name and not name.startswith(
        "."
    )
