"""torch's two file formats, zip and legacy, read without ``torch.load``."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import FileCorruptError, NotAHypernetworkError, UnsupportedVariantError
from .opened import LARGEST_PIECE, OpenedFile, Region
from .pickles import StoragePointer, TensorPointer, load_plain

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The number at the start of a legacy file."""

DEEPEST = 12
"""Most containers inside containers, in a file whose tensors are all read. The state of a training
run has six.
"""

Find = Callable[[StoragePointer], Region]
"""Returns the region of the file that has a storage's bytes."""


def load(file: OpenedFile) -> tuple[Any, Find]:
    """The object in a torch file, with a :class:`TensorPointer` for each tensor.

    No tensor is read; :func:`materialise` does that.

    Returns:
        The object, and a function that finds the data of a storage.

    Raises:
        FileCorruptError, FileUnsafeError, NotAHypernetworkError: see :mod:`hypernetworks.errors`.
    """
    head = file.piece(0, 64)
    if not head:
        raise FileCorruptError("the file is empty: download it again")
    if head.startswith(b"PK"):
        return _load_zip(file)
    if head[:1] == b"\x80":
        return _load_legacy(file, head)

    raise NotAHypernetworkError(
        "it is not a torch file: it starts neither like a zip archive nor like a pickle. Download "
        "it again, or name another file"
    )


def _load_zip(file: OpenedFile) -> tuple[Any, Find]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            pickles = [
                m
                for m in members
                if m.filename.count("/") == 1 and m.filename.endswith("/data.pkl")
            ]
            if len(pickles) != 1:
                raise NotAHypernetworkError("it is a zip archive, but not one that torch wrote")
            root = pickles[0].filename.removesuffix("data.pkl")
            _check_members(members)
            if (
                f"{root}byteorder" in archive.namelist()
                and archive.read(f"{root}byteorder") == b"big"
            ):
                raise FileCorruptError(
                    "its tensors are big-endian: convert it on the machine that wrote it"
                )
            if pickles[0].file_size > LARGEST_PIECE:
                raise NotAHypernetworkError(
                    f"its description alone has {pickles[0].file_size >> 20} MiB"
                )
            described = load_plain(io.BytesIO(archive.read(pickles[0])))
    except (
        zipfile.BadZipFile,
        struct.error,
        ArithmeticError,
        EOFError,
        RuntimeError,
        ValueError,
    ) as error:
        raise FileCorruptError(
            f"the archive is damaged or incomplete ({error}): download it again"
        ) from error

    regions = {m.filename: m for m in members}

    def find(storage: StoragePointer) -> Region:
        member = regions.get(f"{root}data/{storage.key}")
        if member is None:
            raise FileCorruptError("a storage is missing from the archive: download it again")
        return _member_region(file, member)

    return described, find


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    names = [m.filename for m in members]
    # Readers disagree on which of two equal names counts, so a scanner might see another file.
    if len(set(names)) != len(names):
        raise FileCorruptError("the archive has two members of the same name")
    if any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise FileCorruptError(
            "the archive has members outside its own folder, which torch never writes"
        )

    # Nothing is expanded, so a small archive can't fill the memory.
    if any(
        m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members
    ):
        raise FileCorruptError(
            "the archive is compressed, which torch never does: unpack and save it again with torch"
        )


def _member_region(file: OpenedFile, member: zipfile.ZipInfo) -> Region:
    """The region of a stored member, according to its local header."""
    header = file.piece(member.header_offset, 30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise FileCorruptError("the archive's table of contents is damaged: download it again")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    return member.header_offset + 30 + name_length + extra_length, member.file_size


def _load_legacy(file: OpenedFile, head: bytes) -> tuple[Any, Find]:
    """Read a legacy file.

    It has five pickles (magic number, protocol, system, object, storage keys), then the length and
    data of each storage.
    """
    if b"." not in head:
        raise NotAHypernetworkError("it is a pickle, but not one that torch wrote")

    stream = io.BytesIO(file.piece(0, LARGEST_PIECE))
    magic = load_plain(stream)
    if not isinstance(magic, int) or magic != LEGACY_MAGIC:
        raise NotAHypernetworkError("it is a pickle, but not one that torch wrote")
    protocol, system = load_plain(stream), load_plain(stream)
    if not (isinstance(protocol, int) and protocol == 1001 and isinstance(system, dict)):
        raise FileCorruptError("its legacy header is of an unknown kind")
    if system.get("little_endian") is False:
        raise FileCorruptError("its legacy header is of an unknown kind")

    described, keys = load_plain(stream), load_plain(stream)
    regions = _legacy_regions(file, stream.tell(), described, keys)

    def find(storage: StoragePointer) -> Region:
        if storage.key not in regions:
            raise FileCorruptError("a storage is missing from the file: download it again")
        return regions[storage.key]

    return described, find


def _legacy_regions(
    file: OpenedFile, position: int, described: Any, keys: Any
) -> dict[str, Region]:
    """The region of each storage; they follow each other in the order of the keys."""
    pointers = {pointer.storage.key: pointer.storage for pointer in _tensors(described)}
    regions: dict[str, Region] = {}
    for key in keys if isinstance(keys, list) else []:
        storage, counted = (
            pointers.get(key) if isinstance(key, str) else None,
            file.piece(position, 8),
        )
        if storage is None or len(counted) < 8:
            raise FileCorruptError(
                "the list of storages does not match the file: download it again"
            )
        length = struct.unpack("<q", counted)[0] * storage.dtype.itemsize
        if length < 0 or position + 8 + length > file.size:
            raise FileCorruptError("the file ends before its last tensor does: download it again")
        regions[key] = (position + 8, length)
        position += 8 + length

    return regions


def _tensors(described: Any) -> Iterator[TensorPointer]:
    """All tensors in an unpickled object, without recursion, so that any depth is possible."""
    waiting, seen = [described], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, TensorPointer):
            yield item
        elif isinstance(item, (dict, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(item.values() if isinstance(item, dict) else item)


def read_plain(path: Path) -> Any:
    """Read any torch file that has only containers, numbers, text and tensors.

    Raises:
        FileError: see :func:`load`; or its containers are nested deeper than :data:`DEEPEST`.
        OSError: it can't be read.
    """
    with OpenedFile(path) as file:
        described, find = load(file)
        content = materialise(described, file, find, DEEPEST)
        file.check_unchanged()
    return content


def materialise(described: Any, file: OpenedFile, find: Find, depth: int = 4) -> Any:
    """Replace tensor pointers by tensors.

    All pointers are checked first; then every storage is read once, into memory of its own.

    Args:
        described: the object from :func:`load`.
        file: the file.
        find: the function from :func:`load`.
        depth: how deep containers are searched; deeper ones stay as they are. The default is that
            of a hypernetwork's networks. With :data:`DEEPEST`, deeper ones are an error.

    Raises:
        NotAHypernetworkError: containers are nested deeper than :data:`DEEPEST`.
        FileCorruptError: a tensor exceeds its storage, or the file has become shorter.
    """
    regions = {
        pointer: _checked(pointer, find(pointer.storage)) for pointer in set(_tensors(described))
    }
    memory, places = file.read_regions(regions[p] for p in regions if 0 not in p.shape)
    # A list of the same list, many times over, is small in a file: each is converted once.
    visited: dict[tuple[int, int], Any] = {}

    def visit(item: Any, left: int) -> Any:
        if isinstance(item, TensorPointer):
            return _tensor(item, memory, places.get(regions[item], 0), regions[item][1])
        if not isinstance(item, (dict, list, tuple)):
            return item
        if not left:
            if depth == DEEPEST:
                raise NotAHypernetworkError("its lists are nested too deeply")
            return item
        if (id(item), left) not in visited:
            visited[id(item), left] = (
                {key: visit(value, left - 1) for key, value in item.items()}
                if isinstance(item, dict)
                else type(item)(visit(value, left - 1) for value in item)
            )

        return visited[id(item), left]

    return visit(described, depth)


def _checked(pointer: TensorPointer, region: Region) -> Region:
    """The region, after a check that the tensor stays within it."""
    if any(n > 1 and step == 0 for n, step in zip(pointer.shape, pointer.stride, strict=True)):
        raise UnsupportedVariantError(
            "a tensor in the file repeats its values (an expanded view): save it again with "
            ".contiguous()"
        )
    extent = 1 + sum((n - 1) * s for n, s in zip(pointer.shape, pointer.stride, strict=True))
    held = min(region[1] // pointer.storage.dtype.itemsize, pointer.storage.numel)
    if 0 not in pointer.shape and (
        pointer.offset + extent > held or math.prod(pointer.shape) > held
    ):
        raise FileCorruptError("a tensor extends beyond the data in the file: download it again")
    return region


def _tensor(pointer: TensorPointer, memory: Any, place: int, length: int) -> torch.Tensor:
    dtype = pointer.storage.dtype
    if 0 in pointer.shape:
        return torch.empty(0, dtype=dtype)  # no layer has such a shape
    flat = torch.frombuffer(memory, dtype=dtype, count=length // dtype.itemsize, offset=place)
    return flat.as_strided(pointer.shape, pointer.stride, pointer.offset)
