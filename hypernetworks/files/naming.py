"""What a file may be called, on every system, and when two names are one."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

DEVICE = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE | re.ASCII
)
"""File names that are devices on Windows, with any suffix: a file of that name can't be kept or
copied there.
"""


def is_plain(name: str) -> bool:
    """Whether a file name is one part of a path on every system, and not hidden."""
    return PurePosixPath(name).name == name == PureWindowsPath(name).name and not name.startswith(
        "."
    )


def folded(name: str) -> str:
    """The same text for all names that are one file on some system.

    Windows and macOS take ``Ink.pt`` and ``ink.pt`` for one; macOS also ``é`` as one character or
    as two.
    """
    if name.isascii():  # nearly all are, and lists have many
        return name.lower()
    return composed(composed(name).casefold())


def composed(name: str) -> str:
    """The name with accents and letters as one character where there is one; macOS lists them
    apart.
    """
    return unicodedata.normalize("NFC", name)
