"""One file of a library."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

from ..files.naming import is_text

EARLY = 8
"""Length of the hash that AUTOMATIC1111 wrote until January 2023; see :meth:`Entry.early_hash`."""
EARLY_OF_SMALL = "e3b0c442"
"""That hash for every file below 1 MiB, which is the hash of nothing."""
_BY_PREFERENCE = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


@dataclass(frozen=True)
class Entry:
    """A hypernetwork file in a folder; its content is not known yet.

    Attributes:
        name: the file's stem, which tags use.
        path: the file.
        folder: path of its folder relative to the library's, with ``/``; empty at the top.
        size: in bytes.
        mtime_ns: modification time in nanoseconds.
        place: number of the library's folder that contains it; of equal names, the lowest wins.
    """

    name: str
    path: Path
    folder: str
    size: int
    mtime_ns: int
    place: int = 0

    @property
    def full_name(self) -> str:
        """``folder/stem``, which is also a valid name in a tag."""
        return f"{self.folder}/{self.name}" if self.folder else self.name

    @property
    def is_text(self) -> bool:
        """Whether its path is valid text, fit for a page: file systems allow any bytes."""
        return is_text(self.path)

    @property
    def identity(self) -> tuple[str, int, int]:
        """Identifies an unchanged file: path, size and modification time."""
        return str(self.path), self.size, self.mtime_ns

    def sha256(self, stopping: threading.Event | None = None) -> str:
        """SHA-256 of the whole file, hexadecimal; webuis show its first ten characters.

        Args:
            stopping: ends the reading when it is set.

        Raises:
            InterruptedError: it was set.
            OSError: the file can't be read.
        """
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                if stopping is not None and stopping.is_set():
                    raise InterruptedError("the hash was cancelled")

        return digest.hexdigest()

    @property
    def rank(self) -> tuple[int, int]:
        """Order among files with one name: the library's folders, then .safetensors before .pt."""
        suffix = self.path.suffix.lower()
        return self.place, _BY_PREFERENCE.index(suffix) if suffix in _BY_PREFERENCE else 9

    def early_hash(self) -> str | None:
        """The hash that AUTOMATIC1111 wrote until January 2023: 8 digits, of the 64 KiB at 1 MiB.

        ``None`` for smaller files: they have nothing there, so all of them would have one hash.
        """
        with self.path.open("rb") as file:
            file.seek(1 << 20)
            window = file.read(1 << 16)
        return hashlib.sha256(window).hexdigest()[:8] if window else None
