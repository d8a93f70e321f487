"""Goes through folders without opening a file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..files import SUFFIXES
from .entry import Entry


class Visited:
    """Folders that a scan has been in, under whatever path: a link, a relative path, another
    spelling of the drive.
    """

    def __init__(self) -> None:
        self._seen: set[object] = set()

    def is_new(self, folder: str) -> bool:
        """Whether this folder was not yet asked about.

        Raises:
            OSError: it can't be looked at.
        """
        status = Path(folder).stat()
        same: list[object] = [os.path.normcase(os.path.realpath(folder))]
        # the system's own answer; with the time, for network drives that number folders at random
        if status.st_ino:
            same.append((status.st_dev, status.st_ino, status.st_mtime_ns))
        if not self._seen.isdisjoint(same):
            return False

        self._seen.update(same)
        return True


def walk(
    folder: Path, known: Mapping[str, Entry], place: int, visited: Visited
) -> Iterator[tuple[str, Entry]]:
    """Path (on Windows in lower case) and entry of each file with a known suffix, hidden ones
    excepted.

    Every file is looked at (a file written in place changes, and its folder doesn't), none is
    opened. What can't be read is passed over.

    Args:
        folder: where to begin; links that lead round in a circle are followed once.
        known: what the last scan gave. A file that is as it was keeps its entry: making one costs
            more than looking at the file.
        place: the number of the folder among the library's.
        visited: shared by the walks of one scan, so that a folder that two paths lead to is one.
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
                if item.name.lower().endswith(SUFFIXES) and item.is_file():
                    key = os.path.normcase(item.path)
                    yield key, _entry(item, relative, known.get(key), place)
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
