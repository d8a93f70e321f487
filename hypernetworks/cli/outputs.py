"""The files that a command writes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import HypernetworkError


def refuse_existing(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Raise where a file would be replaced that nobody said may be: before anything is written.

    Raises:
        HypernetworkError: the first of them that exists.
    """
    there = None if overwrite else next((path for path in paths if path.exists()), None)
    if there is not None:
        raise HypernetworkError(f"{there} exists: choose another name, or add --overwrite")
