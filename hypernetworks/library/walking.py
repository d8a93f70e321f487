"""Goes through folders without opening a file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..files import SUFFIXES
from .entry import Entry


def walk(folder: Path, known: Mapping[str, Entry]) -> Iterator[tuple[str, Entry]]:
    """Path (on Windows in lower case) and entry of each file with a known suffix, hidden ones excepted.

    Every file is looked at (a file written in place changes, and its folder doesn't), none is opened. What can't be
    read is passed over.

    Args:
        folder: where to begin; links that lead round in a circle are followed once.
        known: what the last scan gave. A file that is as it was keeps its entry: making one costs more than
            looking at the file.
    """
    waiting, seen = [(str(folder), "")], set()
    while waiting:
        here, relative = waiting.pop()
        try:
            real = os.path.realpath(here)
            if real in seen:
                continue
            seen.add(real)
            with os.scandir(here) as scan:
                items = list(scan)
        except OSError:
            continue
        below = []
        for item in items:
            try:
                if item.name.startswith("."):
                    continue
                if item.name.lower().endswith(SUFFIXES) and item.is_file():
                    place = os.path.normcase(item.path)
                    yield place, _entry(item, relative, known.get(place))
                elif item.is_dir():
                    below.append(item)
            except OSError:  # a link to itself, a file that is gone by now
                continue
        below.sort(
            key=lambda item: (not item.is_symlink(), item.name)
        )  # the last is walked first, and links last
        waiting += [
            (item.path, f"{relative}/{item.name}" if relative else item.name) for item in below
        ]


def _entry(item: os.DirEntry[str], folder: str, known: Entry | None) -> Entry:
    status = item.stat()
    size, mtime = status.st_size, status.st_mtime_ns
    same = known is not None and (known.mtime_ns, known.size, known.folder) == (mtime, size, folder)
    if known is not None and same and known.path.name == item.name:
        return known
    return Entry(item.name.rpartition(".")[0], Path(item.path), folder, size, mtime)
