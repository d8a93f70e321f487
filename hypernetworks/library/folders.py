"""A library: folders of hypernetwork files, names, and a cache of loaded networks bounded in bytes."""

from __future__ import annotations

import difflib
import os
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..engine.network import Hypernetwork
from ..errors import AmbiguousNameError, FileMissingError, UnknownNameError
from ..files import SUFFIXES, read
from .entry import Entry

CACHE_BYTES = 1 << 30
"""Loaded networks kept, in bytes, unless a library is told otherwise."""
_HASHED_NAME = re.compile(r"(.+)\(([0-9a-f]{4,64})\)")


class Library:
    """Hypernetwork files below some folders.

    Args:
        folders: searched with their sub-folders; ones that don't exist are skipped.
        cache_bytes: how much of loaded networks is kept.
    """

    def __init__(self, folders: Iterable[str | os.PathLike[str]], *, cache_bytes: int = CACHE_BYTES) -> None:
        self.folders = tuple(Path(folder) for folder in folders)
        self.cache_bytes = cache_bytes
        self._entries: tuple[Entry, ...] | None = None
        self._ambiguous: frozenset[str] = frozenset()
        self._loading = threading.RLock()  # a webui's page asks from one thread while it samples in another
        self._loaded: OrderedDict[tuple[str, int, int], Hypernetwork] = OrderedDict()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All files by name; scans on first use."""
        return self.scan() if self._entries is None else self._entries

    def scan(self) -> tuple[Entry, ...]:
        """Look at the folders again. No file is opened; links that lead round in a circle are followed once."""
        found = {entry.path: entry for folder in self.folders for entry in _walk(folder)}
        entries = tuple(sorted(found.values(), key=lambda e: (e.name.lower(), e.full_name, str(e.path))))
        self._ambiguous = frozenset(name for name, count in Counter(e.name for e in entries).items() if count > 1)
        self._entries = entries
        return entries

    def look_in(self, folders: Iterable[str | os.PathLike[str]]) -> None:
        """Change the folders. What is loaded is kept; where they are others than before, the next use scans."""
        wanted = tuple(Path(folder) for folder in folders)
        if wanted != self.folders:
            self.folders, self._entries = wanted, None

    def name_of(self, entry: Entry) -> str:
        """What a tag calls it: the stem, or ``folder/stem`` where several files share the stem."""
        known = self.entries  # a scan, if there was none yet
        return entry.full_name if known and entry.name in self._ambiguous else entry.name

    def find(self, name: str) -> Entry:
        """The file that a tag's name means: exact, then case-insensitive, then as ``name(hash)``.

        Raises:
            UnknownNameError: with the nearest existing names.
            AmbiguousNameError: with the full names to choose from.
        """
        for wanted in self._spellings(name):
            for fold in (str, str.casefold):
                entries = [e for e in self.entries if fold(wanted) in (fold(e.name), fold(e.full_name))]
                exact = [e for e in entries if fold(e.full_name) == fold(wanted)]
                if len(entries) == 1 or len(exact) == 1:
                    return (entries if len(entries) == 1 else exact)[0]
                if entries:
                    raise AmbiguousNameError(f'the name "{name}" is ambiguous{_alternatives(entries)}')
        raise UnknownNameError(f'there is no hypernetwork "{name}"{self._suggestion(name)}')

    def load(self, entry: Entry) -> Hypernetwork:
        """The network of an entry, read once and kept while the cache has room; a file replaced on disk is read again.

        Raises:
            FileError, StructureError: see :func:`hypernetworks.read`.
        """
        with self._loading:
            return self._load(entry)

    def _load(self, entry: Entry) -> Hypernetwork:
        try:
            status = entry.path.stat()
        except OSError as error:
            raise FileMissingError(f"{entry.path}: the file is gone, refresh the list") from error
        identity = replace(entry, size=status.st_size, mtime_ns=status.st_mtime_ns).identity
        if identity in self._loaded:
            self._loaded.move_to_end(identity)
            return self._loaded[identity]
        for known in [known for known in self._loaded if known[0] == identity[0]]:
            del self._loaded[known]
        network = read(entry.path)
        self._loaded[identity] = network
        while len(self._loaded) > 1 and sum(size for _, size, _ in self._loaded) > self.cache_bytes:
            self._loaded.popitem(last=False)[1].release()
        return network

    @staticmethod
    def _spellings(name: str) -> list[str]:
        hashed = _HASHED_NAME.fullmatch(name.strip())
        return list(dict.fromkeys([name, name.strip(), *([hashed[1].strip()] if hashed else [])]))

    def _suggestion(self, name: str) -> str:
        if not self.entries:
            return f": no files in {', '.join(map(str, self.folders)) or 'any folder'}"
        names = {e.name.lower(): e.name for e in self.entries}
        near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
        return f", did you mean {' or '.join(names[n] for n in near)}?" if near else ""


def _alternatives(entries: Sequence[Entry]) -> str:
    names = [e.full_name for e in entries]
    if len(set(names)) == len(names):
        return f", write {' or '.join(names)}"
    return f": rename all but one of {', '.join(str(e.path) for e in entries)}"


def _walk(folder: Path) -> Iterable[Entry]:
    """Files with a known suffix, hidden ones excepted; what can't be read is passed over."""
    waiting, seen = [(str(folder), "")], set()
    while waiting:
        here, relative = waiting.pop()
        try:
            real = os.path.realpath(here)
            if real in seen:
                continue
            seen.add(real)
            with os.scandir(here) as scan:
                items = sorted(scan, key=lambda item: (not item.is_symlink(), item.name))  # links are walked last
        except OSError:
            continue
        for item in items:
            try:
                if item.is_dir() and not item.name.startswith("."):
                    waiting.append((item.path, f"{relative}/{item.name}" if relative else item.name))
                elif _is_listed(item):
                    status = item.stat()
                    stem = os.path.splitext(item.name)[0]
                    yield Entry(stem, Path(item.path), relative, status.st_size, status.st_mtime_ns)
            except OSError:  # a link to itself, a file that is gone by now
                continue


def _is_listed(item: os.DirEntry[str]) -> bool:
    suffix = os.path.splitext(item.name)[1]
    return suffix.lower() in SUFFIXES and not item.name.startswith(".") and item.is_file()
