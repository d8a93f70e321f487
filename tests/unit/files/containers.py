"""Writes dictionaries into the containers that are out there, with the tools that wrote them
there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from reference import Content
from safetensors.torch import save_file


def save_zip(content: object, path: Path) -> Path:
    """torch's container since 1.6."""
    torch.save(content, path)
    return path


def save_legacy(content: object, path: Path) -> Path:
    """torch's container before: pickles one after the other, then the numbers."""
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def save_safetensors(content: Content, path: Path) -> Path:
    """The layout of docs/safetensors.md, by the safetensors library alone."""
    tensors = {
        f"{size}.{side}.{key}": tensor.contiguous()
        for size, pair in content.items()
        if type(size) is int
        for side, state in zip("kv", pair, strict=True)
        for key, tensor in state.items()
    }
    metadata = {
        key: json.dumps(value)
        for key, value in content.items()
        if type(key) is str and value is not None
    }
    save_file(tensors, str(path), metadata={"format": "pt", "hypernetwork": "1"} | metadata)
    return path


TORCH_CONTAINERS: dict[str, Callable[[object, Path], Path]] = {
    "zip": save_zip,
    "legacy": save_legacy,
}
