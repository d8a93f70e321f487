"""Event files that TensorBoard reads, written without TensorBoard: one record per step, scalars
only.

A record is its length, a checksum of that, the content and a checksum of that (TFRecord); the
content is an ``Event`` in protocol buffers' encoding.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path

from ..errors import FileWriteError
from .health import TrainingStep

FOLDER = "tensorboard"
"""In a run's folder."""
SHOWN = ("loss", "smoothed", "validation", "rate", "gradient_norm")
"""Fields of a step that become curves."""


class Events:
    """An event file of its own for each start of a run: TensorBoard shows those of a folder as one
    run.

    Args:
        folder: of the run.

    Raises:
        FileWriteError: the folder can't be written.
    """

    def __init__(self, folder: Path) -> None:
        now = time.time()
        self.path = folder / FOLDER / f"events.out.tfevents.{now:.6f}.hypernetworks"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _refused(self.path, error) from error
        self._append(_double(1, now) + _bytes(3, b"brain.Event:2"))

    def add(self, done: TrainingStep) -> None:
        """Append a step.

        Raises:
            FileWriteError: the file can't be written.
        """
        values = {name: getattr(done, name) for name in SHOWN}
        self.add_scalars(done.step, {k: float(v) for k, v in values.items() if v is not None})

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Append numbers by the names of their curves."""
        summary = b"".join(
            _bytes(1, _bytes(1, name.encode()) + _float(2, value)) for name, value in values.items()
        )
        self._append(_double(1, time.time()) + _number(2, step) + _bytes(5, summary))

    def _append(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        record = length + _checksum(length) + event + _checksum(event)
        try:
            with self.path.open("ab") as file:
                file.write(record)
        except OSError as error:
            raise _refused(self.path, error) from error


def _refused(path: Path, error: OSError) -> FileWriteError:
    return FileWriteError(f"{path}: it can't be written ({error.strerror or error})")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _table() -> tuple[int, ...]:
    """Of CRC-32C (Castagnoli), which the standard library doesn't have."""
    rows = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


_TABLE = _table()


def _checksum(content: bytes) -> bytes:
    """CRC-32C, masked as TFRecord has it: a checksum of bytes that hold checksums is weak."""
    value = 0xFFFFFFFF
    for byte in content:
        value = _TABLE[(value ^ byte) & 255] ^ value >> 8
    value ^= 0xFFFFFFFF
    masked = ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)
