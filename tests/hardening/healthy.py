"""Healthy files of every container and variant, as bytes, with the places where their parts begin
and end."""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from reference import Content, Recipe
from unit.files.containers import save_legacy, save_safetensors, save_zip

import hypernetworks as hn


@dataclass(frozen=True)
class Healthy:
    """A file that is read without complaint, or a side-car that is healthy but no network."""

    name: str
    content: bytes
    boundaries: tuple[int, ...]


def _novelai(recipe: Recipe) -> Content:
    """Without metadata, and with the names of the first files."""
    names = {"linear.0.": "linear1.", "linear.1.": "linear2."}

    def renamed(key: str) -> str:
        return next(
            (new + key.removeprefix(old) for old, new in names.items() if key.startswith(old)), key
        )

    content = recipe.content()
    return {
        width: tuple({renamed(key): tensor for key, tensor in state.items()} for state in pair)
        for width, pair in content.items()
        if type(width) is int
    }


def _kohya(recipe: Recipe) -> Content:
    content = {
        key: list(value) if type(key) is int else value for key, value in recipe.content().items()
    }
    del content["activate_output"]
    return content | {"enable_sizes": [8], "is_layer_norm": "False"}


def _side_car(_: Recipe) -> Content:
    state = {0: {"step": torch.tensor(5.0), "exp_avg": torch.zeros(8, 16)}}
    groups = [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}]
    return {
        "optimizer_name": "AdamW",
        "hash": "ab12",
        "optimizer_state_dict": {"state": state, "param_groups": groups},
    }


def _written(content: object, path: Path) -> Path:
    hn.write(hn.read(save_zip(content, path.with_suffix(".first"))), path)
    return path


PLAIN = Recipe()
NORMED = Recipe((8, 16), (1, 2, 1), "prelu", True, True, (0, 0.3, 0))
DEEP = Recipe((8,), (1, 1.5, 2, 1), "relu", False, dtype=torch.float16)
Save = Callable[[object, Path], Path]
KINDS: dict[str, tuple[str, Recipe, Callable[[Recipe], Content], Save]] = {
    "zip": ("net.pt", PLAIN, Recipe.content, save_zip),
    "zip, layer norm": ("net.ckpt", NORMED, Recipe.content, save_zip),
    "zip, half": ("net.bin", DEEP, Recipe.content, save_zip),
    "zip, first generation": ("net.pt", PLAIN, _novelai, save_zip),
    "zip, kohya": ("net.pt", PLAIN, _kohya, save_zip),
    "zip, side-car": ("net.pt.optim", PLAIN, _side_car, save_zip),
    "legacy": ("net.pt", PLAIN, Recipe.content, save_legacy),
    "legacy, layer norm": ("net.pth", NORMED, Recipe.content, save_legacy),
    "legacy, first generation": ("net.bin", PLAIN, _novelai, save_legacy),
    "legacy, side-car": ("net.pt.optim", PLAIN, _side_car, save_legacy),
    "written": ("net.pt", NORMED, Recipe.content, _written),
    "safetensors": ("net.safetensors", PLAIN, Recipe.content, save_safetensors),
    "safetensors, layer norm": ("net.safetensors", NORMED, Recipe.content, save_safetensors),
    "safetensors, half": ("net.safetensors", DEEP, Recipe.content, save_safetensors),
}


@cache
def healthy(kind: str) -> Healthy:
    """The file of a kind; the same bytes every time within a process."""
    name, recipe, make, save = KINDS[kind]
    with TemporaryDirectory() as folder:
        content = save(make(recipe), Path(folder) / name).read_bytes()
    return Healthy(name, content, tuple(sorted(set(_boundaries(content)))))


def members(content: bytes) -> dict[str, bytes]:
    """What is in an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archived(parts: dict[str, bytes]) -> bytes:
    """An archive of parts, all checksums right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def legacy_pickles(content: bytes) -> list[bytes]:
    """The five pickles in front of a legacy file, and the rest."""
    found, position = [], 0
    for _ in range(5):
        stream = io.BytesIO(content[position:])
        for _ in pickletools.genops(stream):
            pass
        found.append(content[position : position + stream.tell()])
        position += stream.tell()
    return [*found, content[position:]]


def _boundaries(content: bytes) -> list[int]:
    if content.startswith(b"PK"):
        return _zip_boundaries(content)
    if content[:1] == b"\x80":
        ends, position = [], 0
        for part in legacy_pickles(content)[:5]:
            position += len(part)
            ends.append(position)
        return [2, *ends, position + 8, position + 9, len(content)]
    length = struct.unpack("<Q", content[:8])[0]
    return [8, 9, 8 + length, len(content) - 1, len(content)]


def _zip_boundaries(content: bytes) -> list[int]:
    found = [len(content) - 22, len(content)]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            start = member.header_offset
            name, extra = struct.unpack("<HH", content[start + 26 : start + 30])
            found += [start, start + 4, start + 30, start + 30 + name, start + 30 + name + extra]
            found.append(start + 30 + name + extra + member.file_size)
        found.append(archive.start_dir)
    position = content.find(b"PK\x01\x02")
    while position >= 0:
        found += [position, position + 46]
        position = content.find(b"PK\x01\x02", position + 1)
    return found
