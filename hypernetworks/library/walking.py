"""Lists the files in folders without opening one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..files import SUFFIXES
from .entry import Entry


class Visited:
    """The folders that a scan has visited, under any path: a link, a relative or other spelling."""

    def __init__(self) -> None:
        self._seen: set[object] = set()

    def is_new(self, folder: str) -> bool:
        """Whether this folder is visited for the first time.

        Raises:
            OSError: the system can't tell.
        """
        status = Path(folder).stat()
        same: list[object] = [os.path.normcase(os.path.realpath(folder))]
        # The system's own identity; with the time, since some network drives number at random.
        if status.st_ino:
            same.append((status.st_dev, status.st_ino, status.st_mtime_ns))
        if not self._seen.isdisjoint(same):
            return False

        self._seen.update(same)
        return True


def walk(
    folder: Path, known: Mapping[str, Entry], place: int, visited: Visited
) -> Iterator[tuple[str, Entry]]:
    """All files with a known suffix, except hidden ones; what can't be read is skipped.

    The system is asked about every file, because a file that is written in place changes while its
    folder doesn't. No file is opened.

    Args:
        folder: where to start; links that form a circle are followed once.
        known: the result of the last scan. An unchanged file keeps its entry, since making one
            takes longer than asking the system.
        place: the number of the folder in the library.
        visited: shared by all folders of a scan, so that no folder is listed twice.

    Yields:
        The path (on Windows in lower case) and the entry.
    """
    waiting = [(str(folder), "")]
    while waiting:
        here, relative = waiting.pop()
        try:
            if not visited.is_new(here):
                continue
            with os.scandir(here) as scan:
                items = list(scan)
        except OSError:
            continue

        below = []
        for item in items:
            try:
                if item.name.startswith("."):
                    continue
                # The name first: is_file() asks the system, and most files are of other kinds.
                if item.name.lower().endswith(SUFFIXES) and item.is_file():
                    key = os.path.normcase(item.path)
                    yield key, _entry(item, relative, known.get(key), place)
                elif item.is_dir():
                    below.append(item)
            except OSError:  # a link to itself, a file that is gone by now
                continue

        # The last one is visited first. Links come last, so that a folder keeps its own path.
        below.sort(key=lambda item: (not item.is_symlink(), item.name))
        waiting += [
            (item.path, f"{relative}/{item.name}" if relative else item.name) for item in below
        ]


def _entry(item: os.DirEntry[str], folder: str, known: Entry | None, place: int) -> Entry:
    status = item.stat()
    now = status.st_mtime_ns, status.st_size, folder, place
    if (
        known is not None
        and (known.mtime_ns, known.size, known.folder, known.place) == now
        and known.path.name == item.name
    ):
        return known
    stem = item.name.rpartition(".")[0]
    return Entry(stem, Path(item.path), folder, status.st_size, status.st_mtime_ns, place)
