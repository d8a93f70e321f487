"""A library: folders of hypernetwork files, names, and the networks that are kept loaded."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

from ..engine.network import Hypernetwork
from ..errors import FileMissingError, UnknownNameError
from ..files import read
from .cache import Cache
from .entry import Entry
from .hashing import Hashes
from .names import Names
from .walking import walk

CACHE_BYTES = 1 << 30
"""Loaded networks kept, in bytes, unless a library is told otherwise."""


class Library:
    """Hypernetwork files below some folders. May be used by several threads at once.

    Args:
        folders: searched with their sub-folders; ones that don't exist are skipped.
        cache_bytes: how much of loaded networks is kept, with all that was made ready from them. The one that was used
            last is kept in any case.

    Attributes:
        hashes: of its files; a program that wants to keep them over a restart sets one with a store.
    """

    def __init__(
        self, folders: Iterable[str | os.PathLike[str]], *, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.folders = tuple(Path(folder) for folder in folders)
        self.hashes = Hashes()
        self._scanning = threading.Lock()
        self._names: Names | None = None
        self._seen: dict[str, Entry] = {}
        self._loaded = Cache(cache_bytes)

    @property
    def cache_bytes(self) -> int:
        """How much of loaded networks is kept, in bytes."""
        return self._loaded.limit

    @cache_bytes.setter
    def cache_bytes(self, limit: int) -> None:
        """A smaller number acts at once."""
        self._loaded.limit_to(limit)

    @property
    def loaded_bytes(self) -> int:
        """What is kept now. It grows while networks are made ready for use; see :meth:`trim`."""
        return self._loaded.nbytes

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All files by name; scans on first use."""
        return self._known().entries

    def scan(self) -> tuple[Entry, ...]:
        """Look at the folders again. No file is opened; links that lead round in a circle are followed once.

        Returns:
            The entries; the very same tuple when nothing has changed.
        """
        return self._scan().entries

    def _known(self) -> Names:
        names = self._names
        return self._scan() if names is None else names

    def _scan(self) -> Names:
        with self._scanning:
            found: dict[str, Entry] = {}
            for folder in self.folders:
                found.update(walk(folder, self._seen))
            names = self._names
            if names is None or found != self._seen:
                order = sorted(
                    found.values(), key=lambda e: (e.name.lower(), e.full_name, str(e.path))
                )
                names = Names(tuple(order))
            self._seen, self._names = found, names
            return names

    def look_in(self, folders: Iterable[str | os.PathLike[str]]) -> None:
        """Change the folders. What is loaded is kept; where they are others than before, the next use scans."""
        wanted = tuple(Path(folder) for folder in folders)
        if wanted != self.folders:
            with (
                self._scanning
            ):  # else a scan that is under way would leave what it found in the other folders
                self.folders, self._names = wanted, None

    def name_of(self, entry: Entry) -> str:
        """What a tag calls it: the stem, or ``folder/stem`` where several files share the stem."""
        return entry.full_name if entry.name in self._known().ambiguous else entry.name

    def find(self, name: str, *, suggest: bool = True) -> Entry:
        """The file that a tag's name means: exact, then case-insensitive, then as ``name(hash)``.

        Args:
            suggest: compare an unknown name with all others, which takes up to 0.1 s in a library of thousands.

        Raises:
            UnknownNameError: with the nearest existing names, if ``suggest``.
            AmbiguousNameError: with the full names to choose from.
        """
        names = self._known()
        entry = names.find(name)
        if entry is not None:
            return entry
        if not names.entries:
            places = ", ".join(map(str, self.folders)) or "any folder"
            raise UnknownNameError(f'there is no hypernetwork "{name}": no files in {places}')
        raise names.unknown(name, suggest)

    def load(self, entry: Entry) -> Hypernetwork:
        """The network of an entry, read once and kept while the cache has room; a file replaced on disk is read again.

        Whoever holds the network keeps it in memory, whatever the cache drops: while one is in use, its file is not
        read a second time.

        Raises:
            FileError, StructureError: see :func:`hypernetworks.read`.
        """
        try:
            status = entry.path.stat()
        except OSError as error:
            raise FileMissingError(f"{entry.path}: the file is gone, refresh the list") from error
        stamp = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
        return self._loaded.get(str(entry.path), stamp, lambda: read(entry.path))

    def trim(self) -> None:
        """Bring what is kept back within the limit; for the end of a generation, which may have made more ready."""
        self._loaded.trim()
