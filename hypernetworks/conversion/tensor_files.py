"""Safetensors files of any size, read one tensor at a time: checkpoints have gigabytes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from ..errors import CheckpointError, printable
from ..files.safetensors_files import DTYPES, looks_like, parse_header

LARGEST_HEADER = 100_000_000
"""Bytes; the safetensors library's own limit."""
_PICKLE_HEADS = (b"PK\x03\x04", b"\x80")


@dataclass(frozen=True)
class Entry:
    """One tensor in a file.

    Attributes:
        dtype: as the header spells it: ``F16``.
        shape: its shape.
        offset, length: its place in the file, in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


class TensorFile:
    """An open safetensors file; a context manager. Nothing is mapped: see
    :mod:`hypernetworks.files.opened`.

    Args:
        path: of the file.

    Raises:
        CheckpointError: there is no such file, or it is another kind or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        name = printable(path.name)
        try:
            self._file = path.open("rb")
        except OSError as error:
            reason = error.strerror or error
            raise CheckpointError(f"{name}: it can't be read ({reason})") from error

        try:
            # of the open file, since the name may get another one meanwhile
            self._before = os.fstat(self._file.fileno())
            self.size = self._before.st_size
            header = self._header()
            self.metadata: dict[str, str] = header.pop("__metadata__", {})
            self.entries: Mapping[str, Entry] = {
                key: self._entry(key, value) for key, value in header.items()
            }
        except CheckpointError as error:
            self._file.close()
            raise CheckpointError(f"{name}: {error}") from error.__cause__
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self._file.close()
            raise CheckpointError(f"{name}: its header is damaged: download it again") from error

    def _header(self) -> dict[str, Any]:
        head = self._file.read(9)
        if not looks_like(head):
            # only now, since the length that a header begins with may have any first byte
            if head.startswith(_PICKLE_HEADS):
                raise CheckpointError(
                    "this is a pickle (.ckpt, .pt, .bin), which can run code when it is opened: "
                    "convert it to .safetensors first, for example with the Checkpoint Merger tab "
                    "of a webui"
                )
            raise CheckpointError("this is not a .safetensors file, or it is damaged")

        # a damaged length must not ask for all the memory there is
        length = int.from_bytes(head[:8], "little")
        if length > LARGEST_HEADER or 8 + length > self.size:
            raise CheckpointError("the file ends before its header does: download it again")
        self._file.seek(8)
        self.data_start = 8 + length
        header = parse_header(self._file.read(length))
        if not isinstance(header, dict):
            raise CheckpointError("its header is not a JSON object: download it again")
        return header

    def _entry(self, name: str, value: Mapping[str, Any]) -> Entry:
        begin, end = (int(offset) for offset in value["data_offsets"])
        entry = Entry(
            str(value["dtype"]),
            tuple(int(n) for n in value["shape"]),
            self.data_start + begin,
            end - begin,
        )

        dtype = DTYPES.get(entry.dtype)
        fits = dtype is None or math.prod(entry.shape) * dtype.itemsize == entry.length
        if begin < 0 or end < begin or self.data_start + end > self.size or not fits:
            raise CheckpointError(
                f"{printable(name)} doesn't fit the file, which may be incomplete: download it "
                "again"
            )
        return entry

    def read(self, name: str) -> torch.Tensor:
        """One tensor in memory of its own, in the file's type.

        Raises:
            CheckpointError: it has a type that torch lacks, or the file has changed.
        """
        entry = self.entries[name]
        dtype = DTYPES.get(entry.dtype)
        if dtype is None:
            raise CheckpointError(
                f"{printable(self.path.name)}: {printable(name)} has the type "
                f"{printable(entry.dtype)}, which can't be computed with: use a version of this "
                "checkpoint in fp16 or fp32"
            )

        # memory of its own: a mapped file could not be replaced on Windows
        memory = bytearray(max(1, entry.length))
        self.read_into(entry.offset, memoryview(memory)[: entry.length])
        count = math.prod(entry.shape)
        if not count:
            return torch.empty(entry.shape, dtype=dtype)
        return torch.frombuffer(memory, dtype=dtype, count=count).view(entry.shape)

    @property
    def number(self) -> int:
        """The system's number of the open file."""
        return self._file.fileno()

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill ``target`` with the bytes from ``offset`` on.

        Raises:
            CheckpointError: the file ends before.
        """
        self._file.seek(offset)
        while target:
            count = self._file.readinto(target)
            if not count:
                raise CheckpointError(
                    f"{printable(self.path.name)}: it got shorter while it was read: wait until "
                    "it is complete, then try again"
                )
            target = target[count:]

    def check_unchanged(self) -> None:
        """Make sure that what was read is one state of the file.

        Raises:
            CheckpointError: someone has written into it since it was opened.
        """
        after = os.fstat(self._file.fileno())
        # a download that goes on changes both
        if (after.st_size, after.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise CheckpointError(
                f"{printable(self.path.name)}: it changed while it was read: wait until it is "
                "complete, then try again"
            )

    def close(self) -> None:
        """Close it; reading is over."""
        self._file.close()

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
