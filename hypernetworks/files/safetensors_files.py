"""Hypernetworks as safetensors: the layout is defined in docs/files.md.

Tensors are named ``WIDTH.k.linear.N.weight`` (and ``.bias``, and ``.v.``). The format allows only
text as metadata: it has AUTOMATIC1111's keys with JSON values, and ``"hypernetwork": "1"``, the
version of the layout.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..engine.structure import StateDict
from ..errors import (
    FileCorruptError,
    NotAHypernetworkError,
    StructureError,
    UnsupportedVariantError,
)
from .opened import OpenedFile, Region

VERSION = "1"
LARGEST_HEADER = 1 << 20
"""Most bytes of a header; larger ones are refused unread. A hypernetwork's has a few kilobytes, an
SDXL checkpoint's 280.
"""
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def looks_like(head: bytes) -> bool:
    """Whether the first bytes are those of a safetensors file: a length, then a JSON object."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30


def load(file: OpenedFile) -> tuple[dict[int, tuple[StateDict, StateDict]], dict[str, Any]]:
    """Networks by width, and the decoded metadata.

    Without the safetensors library, because it maps the file (see :mod:`.opened`).

    Raises:
        FileCorruptError: the header or the tensors are damaged.
        NotAHypernetworkError: the tensors have other names.
    """
    header, start = _header(file)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise FileCorruptError("its metadata is not text: download it again")
    if not header:
        raise NotAHypernetworkError("it holds no tensors")

    names = {
        name: re.fullmatch(r"([1-9][0-9]{0,6})\.([kv])\.(linear\..+)", name) for name in header
    }
    if not all(names.values()):
        raise NotAHypernetworkError(_other_kind(list(header)))

    decoded, read = _decoded(metadata), _read_tensors(file, header, start)
    tensors: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
    for name, match in names.items():
        assert match is not None
        tensors.setdefault(int(match[1]), ({}, {}))["kv".index(match[2])][match[3]] = read[name]

    return dict(tensors), decoded


def _header(file: OpenedFile) -> tuple[dict[str, Any], int]:
    """The JSON header, and the offset at which the tensor data begins."""
    length = int.from_bytes(file.piece(0, 8), "little")
    if 8 + length > file.size:
        raise FileCorruptError("the file ends before its header does: download it again")
    if length > LARGEST_HEADER:
        raise NotAHypernetworkError(
            f"its header alone has {length >> 20} MiB, which no hypernetwork needs"
        )

    try:
        header = parse_header(file.piece(8, length))
    except (ValueError, RecursionError) as error:
        raise FileCorruptError(
            f"its header can't be decoded ({error}): download it again"
        ) from error

    if not isinstance(header, dict):
        raise FileCorruptError("its header is not a JSON object: download it again")
    return header, 8 + length


def parse_header(content: bytes) -> Any:
    """Decode the JSON of a header.

    Raises:
        ValueError: it isn't JSON, or has equal keys or a number of too many digits.
        RecursionError: it is nested too deeply.
    """
    return json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_int=_integer)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without equal keys: readers disagree on which of two counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _integer(text: str) -> int:
    """A whole number of at most 20 digits; older Pythons need 3 s for a million digits."""
    if len(text) > 20:
        raise ValueError("a number has too many digits")
    return int(text)


def _read_tensors(file: OpenedFile, header: dict[str, Any], start: int) -> dict[str, torch.Tensor]:
    """All tensors of a header, after all were checked."""
    entries = {name: _checked(entry, start) for name, entry in header.items()}
    # The format demands tensors without gaps; anything else hides data, or is damaged.
    end = start
    for _, _, (offset, length) in sorted(entries.values(), key=lambda entry: entry[2]):
        if offset != end:
            raise FileCorruptError("its tensors overlap or leave gaps: download it again")
        end = offset + length

    if end != file.size:
        raise FileCorruptError("the file is longer or shorter than its tensors: download it again")

    memory, places = file.read_regions(region for _, _, region in entries.values() if region[1])
    return {
        name: torch.frombuffer(
            memory, dtype=dtype, count=math.prod(shape), offset=places[region]
        ).view(shape)
        if region[1]
        else torch.empty(shape, dtype=dtype)
        for name, (dtype, shape, region) in entries.items()
    }


def _checked(entry: Any, start: int) -> tuple[torch.dtype, tuple[int, ...], Region]:
    """Type, shape and region of a tensor."""
    entry = entry if isinstance(entry, dict) else {}
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    for numbers in (shape, offsets):
        if (
            not isinstance(numbers, list)
            or len(numbers) > 8
            or any(type(n) is not int or n < 0 for n in numbers)
        ):
            raise FileCorruptError(
                "a tensor in its header has an impossible shape or position: download it again"
            )

    dtype = DTYPES.get(str(entry.get("dtype")))
    if dtype is None:
        raise StructureError("a tensor in its header has a data type that no hypernetwork uses")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise FileCorruptError(
            "a tensor in its header has a shape that does not match its size in the file: "
            "download it again"
        )

    return dtype, tuple(shape), (start + offsets[0], offsets[1] - offsets[0])


def _decoded(metadata: dict[str, str]) -> dict[str, Any]:
    if metadata.get("hypernetwork", VERSION) != VERSION:
        raise UnsupportedVariantError(
            "it was written by a newer version of this project: update to read it"
        )
    decoded: dict[str, Any] = {}
    for key in set(metadata) & {*_KEYS, *_PROVENANCE}:
        try:
            decoded[key] = json.loads(metadata[key], parse_int=_integer)
        except (ValueError, RecursionError) as error:
            if key in _KEYS:
                raise StructureError(f"the metadata {key} is not JSON") from error
    return decoded


_KEYS = (
    "layer_structure",
    "activation_func",
    "activate_output",
    "is_layer_norm",
    "dropout_structure",
    "use_dropout",
    "last_layer_dropout",
    "enable_sizes",
)
_PROVENANCE = (
    "step",
    "name",
    "sd_checkpoint",
    "sd_checkpoint_name",
    "weight_initialization",
    "optional_info",
)


def _other_kind(names: list[str]) -> str:
    if any("lora" in name.lower() for name in names):
        return "this is a LoRA, not a hypernetwork: use it with <lora:…>"
    if any(
        name.startswith(("model.diffusion_model.", "first_stage_model.", "conditioner."))
        for name in names
    ):
        return "this is a checkpoint of a whole model, not a hypernetwork"
    return "its tensors are not named like a hypernetwork's (WIDTH.k.linear.N.weight)"


def save(
    path: Path, tensors: dict[int, tuple[StateDict, StateDict]], metadata: dict[str, Any]
) -> None:
    """Write tensors and JSON metadata; the same network always gives the same bytes.

    Without the safetensors library: it writes metadata in random order, and it makes a temporary
    file of its own, which stays for ever if the process is killed.
    """
    from .lines import lines_of  # not at a webui's start, which never writes

    flat = {
        f"{width}.{side}.{key}": tensor.detach().cpu().contiguous()
        for width, pair in tensors.items()
        for side, state in zip("kv", pair, strict=True)
        for key, tensor in state.items()
    }
    text = {"format": "pt", "hypernetwork": VERSION} | {
        k: json.dumps(v) for k, v in metadata.items() if v is not None
    }
    # Lines of the free text that are named as kohya's metadata are found there by other tools, too.
    told = (line.partition(": ") for line in lines_of(str(metadata.get("optional_info") or "")))
    text |= {key: value for key, _, value in told if re.fullmatch(r"ss_[a-z_]+", key)}
    save_flat(path, flat, text)


def save_flat(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write tensors of any names, on the CPU and contiguous, with metadata as it is.

    Args:
        path: written in place; see :func:`~hypernetworks.files.writing.replace`.
        tensors: of the types in :data:`DTYPES`.
    """
    # The largest types first, so that every tensor is aligned without padding.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, end = dict[str, Any]({"__metadata__": metadata}), 0

    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }

    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for _, tensor in ordered:
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
