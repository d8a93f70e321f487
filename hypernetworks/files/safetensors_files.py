"""Hypernetworks as safetensors: the layout is defined in docs/safetensors.md.

Tensors are called ``WIDTH.k.linear.N.weight`` (and ``.bias``, and ``.v.``). The metadata, text by the format's own
rule, holds AUTOMATIC1111's keys with JSON values, and ``"hypernetwork": "1"`` as the layout's version.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..engine.structure import StateDict
from ..errors import FileCorruptError, NotAHypernetworkError, StructureError, UnsupportedVariantError

VERSION = "1"


def looks_like(head: bytes) -> bool:
    """Whether the first bytes are those of a safetensors file: a length, then a JSON object."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30


def load(path: Path) -> tuple[dict[int, tuple[StateDict, StateDict]], dict[str, Any]]:
    """Networks by width, and the metadata decoded.

    Raises:
        FileCorruptError: the header or the tensors are damaged.
        NotAHypernetworkError: the tensors have other names.
    """
    tensors: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
    try:
        with safe_open(str(path), framework="pt") as file:
            names, metadata = list(file.keys()), file.metadata() or {}
            for name in names:
                match = re.fullmatch(r"([1-9][0-9]{0,6})\.([kv])\.(linear\..+)", name)
                if match is None:
                    raise NotAHypernetworkError(_other_kind(names))
                pair = tensors.setdefault(int(match[1]), ({}, {}))
                pair["kv".index(match[2])][match[3]] = file.get_tensor(name)
    except SafetensorError as error:
        raise FileCorruptError(f"the file is damaged or incomplete ({error}): download it again") from error
    if not tensors:
        raise NotAHypernetworkError("it holds no tensors")
    return dict(tensors), _decoded(metadata)


def _decoded(metadata: dict[str, str]) -> dict[str, Any]:
    if metadata.get("hypernetwork", VERSION) != VERSION:
        raise UnsupportedVariantError("it was written by a newer version of this project: update to read it")
    decoded: dict[str, Any] = {}
    for key, value in metadata.items():
        try:
            decoded[key] = json.loads(value)
        except (ValueError, RecursionError) as error:
            if key in _KEYS:
                raise StructureError(f"the metadata {key} is not JSON") from error
    return decoded


_KEYS = ("layer_structure", "activation_func", "activate_output", "is_layer_norm", "dropout_structure")


def _other_kind(names: list[str]) -> str:
    if any("lora" in name.lower() for name in names):
        return "this is a LoRA, not a hypernetwork: use it with <lora:…>"
    if any(name.startswith(("model.diffusion_model.", "first_stage_model.", "conditioner.")) for name in names):
        return "this is a checkpoint of a whole model, not a hypernetwork"
    return "its tensors are not named like a hypernetwork's (WIDTH.k.linear.N.weight)"


def save(path: Path, tensors: dict[int, tuple[StateDict, StateDict]], metadata: dict[str, Any]) -> None:
    """Write tensors and JSON metadata; tensors that share memory are written separately."""
    flat = {
        f"{width}.{side}.{key}": tensor.detach().cpu().contiguous().clone()
        for width, pair in sorted(tensors.items())
        for side, state in zip("kv", pair, strict=True)
        for key, tensor in state.items()
    }
    text = {"format": "pt", "hypernetwork": VERSION} | {k: json.dumps(v) for k, v in metadata.items() if v is not None}
    save_file(flat, str(path), metadata=text)
