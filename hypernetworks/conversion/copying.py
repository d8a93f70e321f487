"""Ranges of bytes copied from one open file to another, by the system itself where it can."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import FileIO

from .tensor_files import TensorFile

CHUNK = 8 << 20
"""Bytes copied at once: so often progress is told, and Ctrl+C noticed."""


class Copier:
    """Writes a new file one range after the other.

    Args:
        source: where ranges come from.
        target: open for writing, without a buffer.
        advance: told of the number of bytes written.
    """

    def __init__(
        self, source: TensorFile, target: FileIO, advance: Callable[[int], object]
    ) -> None:
        self.source, self.target, self.advance = source, target, advance
        self._by_system = hasattr(os, "copy_file_range")
        self._buffer = bytearray()

    def copy(self, begin: int, end: int) -> None:
        """Copy the source's bytes from ``begin`` to ``end``.

        Raises:
            CheckpointError: the source ends before.
            OSError: they can't be written.
        """
        while begin < end:
            count = min(CHUNK, end - begin)
            count = self._copied_by_system(begin, count) or self._copied(begin, count)
            begin += count
            self.advance(count)

    def write(self, content: memoryview) -> None:
        """Write other bytes in their place.

        Raises:
            OSError: they can't be written.
        """
        self._write(content)
        self.advance(len(content))

    def _copied_by_system(self, begin: int, count: int) -> int:
        """How many bytes the system has copied by itself: 0 where it can't.

        Raises:
            OSError: the disk is full.
        """
        if not self._by_system:
            return 0

        try:
            return os.copy_file_range(
                self.source.number, self.target.fileno(), count, offset_src=begin
            )
        except OSError:
            # Two file systems, or one that doesn't know how. Whatever else it is, the ordinary way
            # meets it again, and says so.
            self._by_system = False
            return 0

    def _copied(self, begin: int, count: int) -> int:
        self._buffer = self._buffer or bytearray(CHUNK)
        piece = memoryview(self._buffer)[:count]
        self.source.read_into(begin, piece)
        self._write(piece)
        return count

    def _write(self, content: memoryview) -> None:
        while content:
            content = content[self.target.write(content) :]
