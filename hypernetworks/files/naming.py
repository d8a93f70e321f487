"""Which file names work on every system, and when two names mean one file."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..errors import FileError, printable

DEVICE = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE | re.ASCII
)
"""File names that are devices on Windows, with any suffix. No file there can have such a name."""


def is_text(path: Path | str) -> bool:
    """Whether a path is valid text, fit for a page: file systems allow any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def as_path(path: object, call: str) -> Path:
    """A path that a caller has given.

    Args:
        path: should be a text or a path.
        call: an example of the right call.

    Raises:
        FileError: it is something else.
    """
    try:
        return Path(path)  # type: ignore[arg-type]
    except TypeError as error:
        raise FileError(f"{str(path)[:60]} is not a path: write {call}") from error


def model_name(path: Path) -> str:
    """What people call a model: the file without its suffix; a folder in full (``model-v1.5``), or
    what it stands for in Hugging Face's cache (``someone/a-model``) and in this package.
    """
    if path.is_file():
        return printable(path.stem)

    path = path.resolve()
    if path.parent.name == "snapshots":  # in the cache, a folder is named after a commit
        return printable(path.parents[1].name.removeprefix("models--").replace("--", "/"))

    return printable((path.parent if path.name == "weights" else path).name)


def is_plain(name: str) -> bool:
    """Whether a name has no folder in it, on any system, and isn't hidden."""
    # A backslash is a letter on Linux and a separator on Windows; a colon names a drive or stream.
    return PurePosixPath(name).name == name == PureWindowsPath(name).name and not name.startswith(
        "."
    )


def folded(name: str) -> str:
    """A text that is the same for all names that mean one file on some system.

    For Windows and macOS, ``Ink.pt`` and ``ink.pt`` are one file; for macOS also ``é`` as one
    character or as two.
    """
    if name.isascii():  # the usual case, and faster: libraries have thousands of names
        return name.lower()
    return composed(composed(name).casefold())


def composed(name: str) -> str:
    """The name with accented letters as single characters; macOS lists letter and accent."""
    return unicodedata.normalize("NFC", name)
