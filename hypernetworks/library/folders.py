"""A library: folders of hypernetwork files, names, and the networks that are kept loaded."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from ..engine.network import Hypernetwork
from ..errors import AmbiguousNameError, FileMissingError, UnknownNameError
from ..files import read
from .cache import Cache
from .entry import EARLY, EARLY_OF_SMALL, Entry
from .hashing import Hashes
from .names import Names
from .walking import Visited, walk

CACHE_BYTES = 1 << 30
"""Default size of a library's cache of loaded networks, in bytes."""


Folders: TypeAlias = "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]"
"""One folder, or several."""


class Library:
    """Hypernetwork files below some folders. May be used by several threads at once.

    Args:
        folders: searched with their subfolders; ones that don't exist are skipped. Of files with
            one name, that of the first folder is meant. One path is one folder.
        cache_bytes: how much of loaded networks is kept, with all that was made ready from them.
            The one that was used last is kept in any case.

    Attributes:
        hashes: of its files; a program that wants to keep them over a restart sets one with a
            store.
    """

    def __init__(self, folders: Folders, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.folders = _paths(folders)
        self.hashes = Hashes()
        self._scanning = threading.Lock()
        self._names: Names | None = None
        self._seen: dict[str, Entry] = {}
        self._loaded = Cache(cache_bytes)
        self._told: set[tuple[str, ...]] = set()

    @property
    def cache_bytes(self) -> int:
        """How much of loaded networks is kept, in bytes."""
        return self._loaded.limit

    @cache_bytes.setter
    def cache_bytes(self, limit: int) -> None:
        """A lower limit takes effect immediately."""
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
        """Look at the folders again.

        No file is opened; links that lead round in a circle are followed once.

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
            visited = Visited()
            for place, folder in enumerate(self.folders):
                found.update(walk(folder, self._seen, place, visited))
            names = self._names
            if names is None or found != self._seen:
                order = sorted(
                    found.values(), key=lambda e: (e.name.lower(), e.full_name, e.rank, str(e.path))
                )
                names = Names(tuple(order), self._has_hash)
                names.prepare()
            self._seen, self._names = found, names
            return names

    def look_in(self, folders: Folders) -> None:
        """Change the folders.

        What is loaded is kept; where they are others than before, the next use scans.
        """
        wanted = _paths(folders)
        if wanted != self.folders:
            with (
                self._scanning
            ):  # else a scan that is under way would leave what it found in the other folders
                self.folders, self._names = wanted, None

    def stem_of(self, entry: Entry) -> str:
        """The stem, or ``folder/stem`` where several files share the stem.

        Its suffix is no part.
        """
        return entry.full_name if entry.name in self._known().ambiguous else entry.name

    def name_of(self, entry: Entry) -> str:
        """What a tag calls it: :meth:`stem_of`, with the suffix where another file takes
        precedence.
        """
        return self._known().name_of(entry)

    def means(self, name: str, entry: Entry) -> bool:
        """Whether a tag with this name means this file."""
        try:
            return self._known().find(name) is entry
        except AmbiguousNameError:
            return False

    def others(self, name: str, entry: Entry) -> str | None:
        """A line for the user where ``entry`` took precedence over other files of this name; said
        only once.
        """
        passed_over = self._known().passed_over(name, entry)
        key = (str(entry.path), *(str(other.path) for other in passed_over))
        if not passed_over or key in self._told:
            return None
        self._told.add(key)
        others = " and ".join(str(other.path) for other in passed_over)
        return (
            f'"{name}" means {entry.path}, which takes precedence over {others} '
            "(folders in order, then .safetensors before .pt)"
        )

    def _has_hash(self, entry: Entry, wanted: str) -> bool:
        """Whether a file's hash begins so, or is that of before January 2023."""
        try:
            if len(wanted) == EARLY and wanted == (entry.early_hash() or EARLY_OF_SMALL):
                return True
            return self.hashes.sha256(entry).startswith(wanted)
        except OSError:
            return False

    def find(self, name: str, *, suggest: bool = True) -> Entry:
        """The file that a tag's name means.

        Spelled exactly, else in another Unicode form, with blanks or ``\\``, else in another case;
        then with the file's suffix, then as ``name(hash)`` if the file has that hash. Of several
        files with the same name, the library's first folder counts, then .safetensors before .pt.

        Args:
            suggest: compare an unknown name with all others, which takes up to 0.1 s in a library
                of thousands.

        Raises:
            UnknownNameError: with the nearest existing names, if ``suggest``.
            AmbiguousNameError: several subfolders have it; with the full names to choose from.
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
        """The network of an entry, read once and kept while the cache has room; a file replaced on
        disk is read again.

        Whoever holds the network keeps it in memory, whatever the cache drops: while one is in use,
        its file is not read a second time.

        Raises:
            FileError, StructureError: see :func:`hypernetworks.read`.
        """
        try:
            status = entry.path.stat()
        except OSError as error:
            raise FileMissingError(f"{entry.path} no longer exists: refresh the list") from error

        stamp = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
        return self._loaded.get(str(entry.path), stamp, lambda: read(entry.path))

    def trim(self) -> None:
        """Bring what is kept back within the limit; for the end of a generation, which may have
        made more ready.
        """
        self._loaded.trim()


def _paths(folders: Folders) -> tuple[Path, ...]:
    """One path is a folder, not a list of letters."""
    if isinstance(folders, (str, os.PathLike)):
        return (Path(folders),)
    return tuple(Path(folder) for folder in folders)
