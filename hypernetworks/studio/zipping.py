"""A model in a folder as one file, because gradio gives out files alone."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

from ..files.writing import replace

LARGEST = 2 << 30
"""Bytes of a folder that is worth the time and the second copy on the disk."""


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def zipped(folder: Path) -> Path:
    """Put a folder into a file beside it, which takes its place.

    Returns:
        The file; the folder's name is the first part of every name in it.

    Raises:
        FileWriteError: it can't be written.
    """
    path = Path(f"{folder}.zip")
    replace(path, lambda temporary: _write(folder, temporary))
    shutil.rmtree(folder, ignore_errors=True)
    return path


def _write(folder: Path, temporary: Path) -> None:
    # Weights can't be compressed further.
    with zipfile.ZipFile(temporary, "w") as archive:
        for place, _, files in os.walk(folder):
            for name in sorted(files):
                file = Path(place) / name
                archive.write(file, file.relative_to(folder.parent))
