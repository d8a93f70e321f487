"""torch's two containers, zip and legacy: tensors of plain dictionaries, without torch.load."""

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
"""First pickled number of a legacy file."""

DEEPEST = 12
"""Containers within containers of a file whose every tensor is wanted; the state of a run has six.
"""

Find = Callable[[StoragePointer], Region]
"""Where a storage's bytes are in the file."""


def load(file: OpenedFile) -> tuple[Any, Find]:
    """The object in a torch file, with :class:`TensorPointer` in the place of tensors, and where
    their numbers are.

    No number is read: see :func:`materialise`.

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
        "it is not a torch file: it starts neither like a zip archive nor like a pickle"
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
    if len(set(names)) != len(names):
        raise FileCorruptError("the archive has two members of the same name")
    if any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise FileCorruptError(
            "the archive has members outside its own folder, which torch never writes"
        )
    if any(
        m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members
    ):
        raise FileCorruptError(
            "the archive is compressed, which torch never does: unpack and save it again with torch"
        )


def _member_region(file: OpenedFile, member: zipfile.ZipInfo) -> Region:
    """Where a stored member's bytes are, from its local header."""
    header = file.piece(member.header_offset, 30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise FileCorruptError("the archive's table of contents is damaged: download it again")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    return member.header_offset + 30 + name_length + extra_length, member.file_size


def _load_legacy(file: OpenedFile, head: bytes) -> tuple[Any, Find]:
    """Magic number, protocol, system description, object, storage keys; then each storage's length
    and numbers.
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
    """Where the numbers of each storage are: they stand one after the other in the order of the
    keys.
    """
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
    """All tensors that an unpickled object refers to; iterative, so that depth does not matter."""
    waiting, seen = [described], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, TensorPointer):
            yield item
        elif isinstance(item, (dict, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(item.values() if isinstance(item, dict) else item)


def read_plain(path: Path) -> Any:
    """Containers, numbers, text and tensors of any torch file, such as the state of a training run.

    Raises:
        FileError: see :func:`load`; or it is deeper than :data:`DEEPEST`.
        OSError: it can't be read.
    """
    with OpenedFile(path) as file:
        described, find = load(file)
        content = materialise(described, file, find, DEEPEST)
        file.check_unchanged()
    return content


def materialise(described: Any, file: OpenedFile, find: Find, depth: int = 4) -> Any:
    """Replace tensor pointers by tensors, down to the depth of networks by width with something
    beside them.

    Every storage is read once, into memory of its own, after all pointers were checked.

    Args:
        depth: containers below it stay as they are, but for :data:`DEEPEST`, which no file may
            exceed.

    Raises:
        NotAHypernetworkError: it is deeper than :data:`DEEPEST`.
        FileCorruptError: a tensor reaches beyond its numbers, or the file got shorter.
    """
    regions = {
        pointer: _checked(pointer, find(pointer.storage)) for pointer in set(_tensors(described))
    }
    memory, places = file.read_regions(regions[p] for p in regions if 0 not in p.shape)
    visited: dict[
        tuple[int, int], Any
    ] = {}  # lists of the same lists of the same lists are small in a file

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
    """The region, if the tensor stays within it."""
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
