"""A file that is opened once, inspected in small pieces, and whose tensors are copied into memory.

Nothing is mapped. Mapping would be some milliseconds faster. But if a mapped file is truncated (a
download restarts, a trainer saves under the same name, a network drive disappears), the system ends
the whole process with SIGBUS at the next access, and data that is written into the file appears in
the tensors.
"""

from __future__ import annotations

import io
import mmap
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import FileCorruptError, FileUnreadableError, NotAHypernetworkError, printable

LARGEST_PIECE = 4 << 20
"""Most bytes of a pickle, a header or a table of contents; larger ones are refused unread."""
ALIGNMENT = 64
"""Tensors start at multiples of this many bytes in memory, wherever they are in the file."""
_HUGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", None)
_LARGE = 1 << 20

Region = tuple[int, int]
"""Offset and length of bytes in the file."""


class OpenedFile(io.FileIO):
    """A regular file, open for reading; a context manager.

    :meth:`read` is for descriptions and refuses pieces larger than :data:`LARGEST_PIECE`, so that
    no description, and no archive that :mod:`zipfile` reads, can fill the memory. Tensors are read
    with :meth:`read_regions`.

    Raises:
        FileUnreadableError: it is a pipe, a socket or a device, for which nothing waits.
        OSError: a folder, no permission, no such file.
    """

    def __init__(self, path: Path) -> None:
        # Before opening, because opening alone can have an effect on a device.
        if not _is_file_or_folder(path.stat().st_mode):
            raise FileUnreadableError(_NO_FILE)
        super().__init__(path, "rb", opener=_open_without_waiting)
        self._before = os.fstat(self.fileno())
        if not _is_file_or_folder(self._before.st_mode):  # replaced between the two checks
            self.close()
            raise FileUnreadableError(_NO_FILE)

    @property
    def size(self) -> int:
        """Its bytes when it was opened."""
        return self._before.st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most ``size`` bytes; the whole rest by default.

        Raises:
            NotAHypernetworkError: more than :data:`LARGEST_PIECE`.
        """
        wanted = self.size - self.tell() if size is None or size < 0 else size
        if wanted > LARGEST_PIECE:
            raise NotAHypernetworkError(
                f"its description alone has {max(1, wanted >> 20)} MiB, far more than a "
                "hypernetwork needs"
            )
        return super().read(max(0, wanted)) or b""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Set the position.

        Raises:
            ValueError: a negative offset, which comes from a damaged archive; not an OSError, which
                would be reported as the system's.
        """
        if whence == os.SEEK_SET and offset < 0:
            raise ValueError("a position before the beginning")
        return super().seek(offset, whence)

    def piece(self, offset: int, length: int) -> bytes:
        """The bytes of a region: those of them that the file has."""
        if not 0 <= offset <= self.size:
            return b""
        self.seek(offset)
        return self.read(length)

    def read_regions(self, regions: Iterable[Region]) -> tuple[Any, dict[Region, int]]:
        """Copy regions of the file into one buffer.

        Returns:
            A writable buffer, and for each region the offset in it, a multiple of
            :data:`ALIGNMENT`.

        Raises:
            FileCorruptError: the file ends before a region does, or regions overlap, which would
                let a small file ask for any amount of memory.
        """
        # All regions are checked before any memory is allocated.
        places, total, end = dict[Region, int](), 0, 0
        for region in sorted(set(regions)):
            if region[0] < end or sum(region) > self.size:
                raise FileCorruptError(
                    "its tensors overlap, or reach beyond the end of the file: download it again"
                )
            places[region], end = total, sum(region)
            total += -(-region[1] // ALIGNMENT) * ALIGNMENT

        memory = _memory(total)
        view = memoryview(memory)
        for (offset, length), place in places.items():
            self._fill(offset, view[place : place + length])
        return memory, places

    def _fill(self, offset: int, target: memoryview) -> None:
        self.seek(offset)
        while target:
            count = self.readinto(target)
            if not count:
                raise FileCorruptError(
                    "it became shorter while it was read: wait until it is complete, then try again"
                )
            target = target[count:]

    def check_unchanged(self) -> None:
        """Check that the file has not changed since it was opened.

        Raises:
            FileCorruptError: it has, so what was read may be a mixture of two states.
        """
        after = os.fstat(self.fileno())
        if (after.st_size, after.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise FileCorruptError(
                "it changed while it was read: wait until it is complete, then try again"
            )


def shown(path: Path) -> str:
    """A path, fit for a message."""
    return printable(str(path), 1000)


_NO_FILE = "it is a pipe or a device: name a file instead"


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _is_file_or_folder(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _memory(size: int) -> bytearray | mmap.mmap:
    """Writable private memory, in huge pages if possible, which halves the time for reading."""
    if size < _LARGE or not hasattr(mmap, "MAP_ANONYMOUS"):
        return bytearray(max(1, size))
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if _HUGE_PAGES is not None:
        with suppress(OSError):  # a kernel without them
            memory.madvise(_HUGE_PAGES)
    return memory
