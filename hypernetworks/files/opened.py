"""A file that is opened once, inspected in small pieces, and whose tensors are read into memory of
our own.

Nothing is mapped. A mapping would be quicker by some milliseconds, but when the file is cut short
underneath it (a download that starts again, a trainer that saves under the same name, a network
drive that goes away), the system ends the whole process with SIGBUS at the next touch; and what is
written into the file appears in the mapped tensors.
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
"""Bytes of one piece of a description (a pickle, a header, a table of contents); more than this is
refused unread.
"""
ALIGNMENT = 64
"""Numbers begin at multiples of this many bytes in memory, wherever they stand in the file."""
_HUGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", None)
_LARGE = 1 << 20

Region = tuple[int, int]
"""Offset and length of bytes in the file."""


class OpenedFile(io.FileIO):
    """A regular file, open for reading; a context manager.

    :meth:`read` serves descriptions and refuses pieces larger than :data:`LARGEST_PIECE`, so that
    no description, and no archive that :mod:`zipfile` looks at, can fill the memory. Numbers go
    through :meth:`read_regions`.

    Raises:
        FileUnreadableError: it is a pipe, a socket or a device. None of those is waited for.
        OSError: a folder, no permission, no such file.
    """

    def __init__(self, path: Path) -> None:
        if not _is_file_or_folder(
            path.stat().st_mode
        ):  # some devices do something when they are opened
            raise FileUnreadableError(_NO_FILE)
        super().__init__(path, "rb", opener=_open_without_waiting)
        self._before = os.fstat(self.fileno())
        if not _is_file_or_folder(self._before.st_mode):  # it became one between the two questions
            self.close()
            raise FileUnreadableError(_NO_FILE)

    @property
    def size(self) -> int:
        """In bytes, when it was opened."""
        return self._before.st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``size`` bytes from where the file stands; all that are left without a size.

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
        """Seek.

        A negative offset comes from a damaged pickle, so it is reported as such, not as a system
        error.
        """
        if whence == os.SEEK_SET and offset < 0:
            raise ValueError("a place before the beginning")
        return super().seek(offset, whence)

    def piece(self, offset: int, length: int) -> bytes:
        """The bytes of a region, fewer where the file ends before; none where there is no such
        place.
        """
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
            FileCorruptError: the file ends before a region does, or regions overlap: a small
                archive could then ask for any amount of memory.
        """
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
                    "it got shorter while it was read: wait until it is complete, then try again"
                )
            target = target[count:]

    def check_unchanged(self) -> None:
        """Make sure that what was read is one state of the file.

        Raises:
            FileCorruptError: someone has written into it since it was opened.
        """
        after = os.fstat(self.fileno())
        if (after.st_size, after.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise FileCorruptError(
                "it changed while it was read: wait until it is complete, then try again"
            )


def shown(path: Path) -> str:
    """A path as it can stand in a message."""
    return printable(str(path), 1000)


_NO_FILE = "it is a pipe or a device: name a file instead"


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _is_file_or_folder(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _memory(size: int) -> bytearray | mmap.mmap:
    """Writable private memory; in huge pages where the system has them, which halves the time of
    reading.
    """
    if size < _LARGE or not hasattr(mmap, "MAP_ANONYMOUS"):
        return bytearray(max(1, size))
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if _HUGE_PAGES is not None:
        with suppress(OSError):  # a kernel without them
            memory.madvise(_HUGE_PAGES)
    return memory
