"""The files that a command writes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import HypernetworkError


def refuse_existing(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Check, before anything is written, that no file would be replaced without ``--overwrite``.

    Raises:
        HypernetworkError: one exists; the message names the first.
    """
    there = None if overwrite else next((path for path in paths if path.exists()), None)
    if there is not None:
        raise HypernetworkError(f"{there} exists: choose another name, or add --overwrite")
