"""One file of a library."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

EARLY = 8
"""Characters of the hash that AUTOMATIC1111 wrote until January 2023; see :meth:`Entry.early_hash`.
"""
EARLY_OF_SMALL = "e3b0c442"
"""That hash for every file below 1 MiB: the hash of nothing."""
_BY_PREFERENCE = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


@dataclass(frozen=True)
class Entry:
    """A hypernetwork file that was seen in a folder; nothing of its content is known yet.

    Attributes:
        name: the file's stem, what a tag calls it.
        path: where it is.
        folder: path of its folder relative to the library's, with ``/``; empty at the top.
        size: in bytes.
        mtime_ns: modification time in nanoseconds.
        place: number of the library's folder that it is below; of equal names, the lower one is
            meant.
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
        """Whether a page or a tag can carry its path: file systems allow bytes that are no text."""
        try:
            str(self.path).encode()
        except UnicodeEncodeError:
            return False
        return True

    @property
    def identity(self) -> tuple[str, int, int]:
        """Identifies an unchanged file: path, size and modification time."""
        return str(self.path), self.size, self.mtime_ns

    def sha256(self, stopping: threading.Event | None = None) -> str:
        """Hash of the whole file, hexadecimal; the webui shows its first ten characters.

        Args:
            stopping: when it is set, the reading ends early.

        Raises:
            InterruptedError: it was set.
            OSError: the file can't be read.
        """
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                if stopping is not None and stopping.is_set():
                    raise InterruptedError("the hash was called off")

        return digest.hexdigest()

    @property
    def rank(self) -> tuple[int, int]:
        """Order among files of one name: the library's folders in their order, then .safetensors
        before .pt.
        """
        suffix = self.path.suffix.lower()
        return self.place, _BY_PREFERENCE.index(suffix) if suffix in _BY_PREFERENCE else 9

    def early_hash(self) -> str | None:
        """The hash that AUTOMATIC1111 wrote until January 2023: 8 characters, of 64 KiB that begin
        at 1 MiB.

        ``None`` for a smaller file, which has nothing there: all of those would share one hash.
        """
        with self.path.open("rb") as file:
            file.seek(1 << 20)
            window = file.read(1 << 16)
        return hashlib.sha256(window).hexdigest()[:8] if window else None
