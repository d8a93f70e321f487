"""A library: folders of hypernetwork files, their names, and loaded networks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from ..engine.network import Hypernetwork
from ..errors import AmbiguousNameError, FileMissingError, HypernetworkError, UnknownNameError
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
    """The hypernetwork files in some folders. Several threads may use it at once.

    Args:
        folders: one or several; subfolders are searched too, missing folders are skipped. If
            several files have one name, the first folder wins.
        cache_bytes: limit for loaded networks and everything prepared from them, in bytes. The last
            used network is always kept.

    Attributes:
        hashes: the hashes of its files. To keep them over a restart, set one with a store.
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
        """Limit for loaded networks, in bytes."""
        return self._loaded.limit

    @cache_bytes.setter
    def cache_bytes(self, limit: int) -> None:
        """Change the limit; a lower one takes effect at once."""
        self._loaded.limit_to(limit)

    @property
    def loaded_bytes(self) -> int:
        """Bytes of all loaded networks. It grows while they are used; see :meth:`trim`."""
        return self._loaded.nbytes

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All files, sorted by name; the first use scans the folders."""
        return self._known().entries

    def scan(self) -> tuple[Entry, ...]:
        """Scan the folders again. No file is opened; links that form a circle are followed once.

        Returns:
            The entries; the same tuple as before if nothing has changed.
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

            # Another thread may use the old names; they never change, so it can go on with them.
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
        """Change the folders. Loaded networks are kept; the next use scans other folders."""
        wanted = _paths(folders)
        if wanted != self.folders:
            # A scan in progress must not leave the entries of the previous folders.
            with self._scanning:
                self.folders, self._names = wanted, None

    def stem_of(self, entry: Entry) -> str:
        """The stem, or ``folder/stem`` if several files have this stem; without the suffix."""
        return entry.full_name if entry.name in self._known().ambiguous else entry.name

    def name_of(self, entry: Entry) -> str:
        """The name for tags: :meth:`stem_of`, with the suffix if another file takes precedence."""
        return self._known().name_of(entry)

    def means(self, name: str, entry: Entry) -> bool:
        """Whether a tag with this name means this file."""
        try:
            return self._known().find(name) is entry
        except AmbiguousNameError:
            return False

    def others(self, name: str, entry: Entry) -> str | None:
        """A message, given once, if ``entry`` takes precedence over files with the same name."""
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
        """Whether a file's hash starts like this, or is this one, of before January 2023."""
        try:
            if len(wanted) == EARLY and wanted == (entry.early_hash() or EARLY_OF_SMALL):
                return True
            return self.hashes.sha256(entry).startswith(wanted)
        except OSError:
            return False

    def find(self, name: str, *, suggest: bool = True) -> Entry:
        """The file that a tag's name means.

        An exact match wins, then another Unicode form, blanks at the ends or ``\\``, then another
        case, then the name with the file's suffix, then ``name(hash)`` if the file has that hash.
        If several files match, the library's first folder wins, then .safetensors before .pt. The
        exact path of a file that no shorter name means, such as ``ink.pt`` beside
        ``ink.safetensors``, comes before all.

        Args:
            name: as in a tag.
            suggest: for an unknown name, search for similar ones; takes up to 0.1 s with thousands
                of files.

        Raises:
            UnknownNameError: no file has the name; lists similar ones, if ``suggest``.
            AmbiguousNameError: several subfolders have it; lists the full names.
        """
        # Without a new scan: a file that was added since shows up after a refresh, as in webuis.
        names = self._known()
        entry = names.find(name)
        if entry is not None:
            return entry
        if not names.entries:
            places = ", ".join(map(str, self.folders)) or "any folder"
            raise UnknownNameError(f'there is no hypernetwork "{name}": no files in {places}')

        raise names.unknown(name, suggest)

    def load(self, entry: Entry) -> Hypernetwork:
        """The network of an entry, kept in the cache; a file that has changed is read again.

        A network that is in use is never read twice, even if the cache has dropped it.

        Raises:
            FileError, StructureError: see :func:`hypernetworks.read`.
        """
        # The stamp comes first: if the file changes while it is read, the next call reads it again.
        try:
            status = entry.path.stat()
        except OSError as error:
            raise FileMissingError(f"{entry.path} no longer exists: refresh the list") from error

        stamp = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
        return self._loaded.get(str(entry.path), stamp, lambda: read(entry.path))

    def trim(self) -> None:
        """Apply the limit again. Call it after a generation, which may have prepared more."""
        self._loaded.trim()


def _paths(folders: Folders) -> tuple[Path, ...]:
    """The folders as a tuple."""
    # A string is a sequence too, of letters.
    if isinstance(folders, (str, os.PathLike)):
        return (Path(folders),)
    try:
        return tuple(Path(folder) for folder in folders)
    except TypeError as error:
        raise HypernetworkError(
            'a library needs folders: write Library(["models/hypernetworks"])'
        ) from error
