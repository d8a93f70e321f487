"""A safetensors file begins with the length of its header, so with any byte that there is."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conversion_cases import checkpoint, network, small_unet
from safetensors.torch import save_file

import hypernetworks as hn
from hypernetworks.conversion import Base
from hypernetworks.conversion.lora_reading import LoraFile
from hypernetworks.conversion.tensor_files import TensorFile
from hypernetworks.errors import CheckpointError


def with_all_first_bytes(source: Path, target: Path, every: int = 1) -> Iterator[int]:
    """Write the file with each first byte; the JSON of its header gets blanks at its end.

    Args:
        every: 8 for those bytes alone that the safetensors library writes.
    """
    content = source.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    for blanks in range(0, 256, every):
        head = struct.pack("<Q", length + blanks) + content[8 : 8 + length] + b" " * blanks
        target.write_bytes(head + content[8 + length :])
        yield head[0]


def test_checkpoints(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source.safetensors", small_unet())
    found = set()
    for first in with_all_first_bytes(source, tmp_path / "model.safetensors", 8):
        with Base(tmp_path / "model.safetensors") as base:
            assert base.layers
        found.add(first)
    assert found == set(range(0, 256, 8))


def test_loras(tmp_path: Path) -> None:
    tensors = {f"lora_unet_a.lora_{kind}.weight": torch.ones(2, 2) for kind in ("up", "down")}
    save_file(tensors, tmp_path / "source.safetensors")
    for _ in with_all_first_bytes(tmp_path / "source.safetensors", tmp_path / "lora.safetensors"):
        with LoraFile(tmp_path / "lora.safetensors") as lora:
            assert dict(lora.squares()) == {"a": 16.0}


def test_networks(tmp_path: Path) -> None:
    hn.write(network("style", 1, widths=(8,)), tmp_path / "source.safetensors")
    for _ in with_all_first_bytes(tmp_path / "source.safetensors", tmp_path / "style.safetensors"):
        assert hn.read(tmp_path / "style.safetensors").widths == (8,)


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\x80\x02}"])
def test_pickles_are_still_told(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "model.ckpt").write_bytes(head + bytes(64))
    with pytest.raises(CheckpointError, match="this is a pickle"):
        TensorFile(tmp_path / "model.ckpt")
