"""torch's two containers, zip and legacy, mapped into memory: tensors of plain dictionaries, without torch.load."""

from __future__ import annotations

import io
import math
import mmap
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..errors import FileCorruptError, NotAHypernetworkError
from .pickles import StoragePointer, TensorPointer, load_plain

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickled number of a legacy file."""
LARGEST_PICKLE = 4 << 20
"""A hypernetwork's pickle has a few kilobytes; more than this is refused unread."""

Region = tuple[int, int]
"""Offset and length of a storage's bytes in the file."""


def load(path: Path) -> Any:
    """The object in a torch file, its tensors mapped copy-on-write from the file.

    Raises:
        FileCorruptError, FileUnsafeError, NotAHypernetworkError: see :mod:`hypernetworks.errors`.
        OSError: it can't be opened.
    """
    with path.open("rb") as file:
        head = file.read(8)
        if not head:
            raise FileCorruptError("the file is empty: download it again")
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if head.startswith(b"PK"):
        return _load_zip(path, memory)
    if head[:1] == b"\x80":
        return _load_legacy(memory)
    raise NotAHypernetworkError("it is not a torch file: it starts neither like a zip archive nor like a pickle")


def _load_zip(path: Path, memory: mmap.mmap) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            pickles = [m for m in members if m.filename.count("/") == 1 and m.filename.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise NotAHypernetworkError("it is a zip archive, but not one that torch wrote")
            root = pickles[0].filename.removesuffix("data.pkl")
            _check_members(members)
            if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") == b"big":
                raise FileCorruptError("its numbers are big-endian: convert it on the machine that wrote it")
            if pickles[0].file_size > LARGEST_PICKLE:
                raise NotAHypernetworkError(f"its description alone has {pickles[0].file_size >> 20} MiB")
            with archive.open(pickles[0]) as stream:
                described = load_plain(stream)
    except (zipfile.BadZipFile, struct.error, ArithmeticError, EOFError, RuntimeError, ValueError) as error:
        raise FileCorruptError(f"the archive is damaged or incomplete ({error}): download it again") from error
    regions = {m.filename: m for m in members}

    def find(storage: StoragePointer) -> Region:
        member = regions.get(f"{root}data/{storage.key}")
        if member is None:
            raise FileCorruptError(f"the storage {storage.key} is missing from the archive: download it again")
        return _member_region(memory, member)

    return _materialise(described, memory, find)


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    names = [m.filename for m in members]
    if len(set(names)) != len(names):
        raise FileCorruptError("the archive has two members of the same name")
    if any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise FileCorruptError("the archive has members outside its own folder, which torch never writes")
    if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members):
        raise FileCorruptError("the archive is compressed, which torch never does: unpack and save it again with torch")


def _member_region(memory: mmap.mmap, member: zipfile.ZipInfo) -> Region:
    """Where a stored member's bytes are, from its local header."""
    header = memory[member.header_offset : member.header_offset + 30]
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise FileCorruptError("the archive's table of contents points nowhere: download it again")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    return member.header_offset + 30 + name_length + extra_length, member.file_size


def _load_legacy(memory: mmap.mmap) -> Any:
    """Magic number, protocol, system description, object, storage keys; then each storage's length and numbers."""
    if len(memory) > 2 and memory[:1] == b"\x80" and memory.find(b".", 0, 64) < 0:
        raise NotAHypernetworkError("it is a pickle, but not one that torch wrote")
    stream = io.BytesIO(memory[:LARGEST_PICKLE])
    if load_plain(stream) != LEGACY_MAGIC:
        raise NotAHypernetworkError("it is a pickle, but not one that torch wrote")
    protocol, system = load_plain(stream), load_plain(stream)
    if protocol != 1001 or not isinstance(system, dict) or system.get("little_endian") is False:
        raise FileCorruptError("its legacy header is of an unknown kind")
    described, keys = load_plain(stream), load_plain(stream)
    pointers = {s.key: s for s in _storages(described)}
    regions: dict[str, Region] = {}
    position = stream.tell()
    for key in keys if isinstance(keys, list) else []:
        pointer = pointers.get(key) if isinstance(key, str) else None
        if pointer is None or position + 8 > len(memory):
            raise FileCorruptError("the list of storages does not fit the file: download it again")
        length = struct.unpack_from("<q", memory, position)[0] * pointer.dtype.itemsize
        if length < 0 or position + 8 + length > len(memory):
            raise FileCorruptError("the file ends before its last numbers: download it again")
        regions[key] = (position + 8, length)
        position += 8 + length

    def find(storage: StoragePointer) -> Region:
        if storage.key not in regions:
            raise FileCorruptError(f"the storage {storage.key} is missing from the file: download it again")
        return regions[storage.key]

    return _materialise(described, memory, find)


def _storages(described: Any) -> list[StoragePointer]:
    """All storages that an unpickled object refers to; iterative, so that depth does not matter."""
    found, waiting, seen = [], [described], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, TensorPointer):
            found.append(item.storage)
        elif isinstance(item, StoragePointer):
            found.append(item)
        elif isinstance(item, (dict, list, tuple, set)) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(item.values() if isinstance(item, dict) else item)
    return found


def _materialise(described: Any, memory: mmap.mmap, find: Callable[[StoragePointer], Region]) -> Any:
    """Replace tensor pointers by tensors, down to the depth that a hypernetwork has (dict, pair, dict)."""
    visited: dict[tuple[int, int], Any] = {}  # lists of the same lists of the same lists are small in a file

    def visit(item: Any, depth: int) -> Any:
        if isinstance(item, TensorPointer):
            return _tensor(item, memory, find(item.storage))
        if not depth or not isinstance(item, (dict, list, tuple)):
            return item
        if (id(item), depth) not in visited:
            visited[id(item), depth] = (
                {key: visit(value, depth - 1) for key, value in item.items()}
                if isinstance(item, dict)
                else [visit(value, depth - 1) for value in item]
            )
        return visited[id(item), depth]

    return visit(described, 3)


def _tensor(pointer: TensorPointer, memory: mmap.mmap, region: Region) -> torch.Tensor:
    offset, length = region
    size = pointer.storage.dtype.itemsize
    count = length // size
    extent = 1 + sum((n - 1) * s for n, s in zip(pointer.shape, pointer.stride, strict=True))
    if 0 in pointer.shape:
        return torch.empty(0, dtype=pointer.storage.dtype)  # no layer has such a shape
    held = min(count, pointer.storage.numel)
    if pointer.offset + extent > held or math.prod(pointer.shape) > held or offset + length > len(memory):
        raise FileCorruptError("a tensor reaches beyond the numbers in the file: download it again")
    flat = torch.frombuffer(memory, dtype=pointer.storage.dtype, count=count, offset=offset)
    return flat.as_strided(pointer.shape, pointer.stride, pointer.offset)
