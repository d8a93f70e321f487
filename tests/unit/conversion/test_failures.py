"""What is left when a conversion fails: a clear error, and everything that was there before."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conversion_cases import checkpoint, network, small_unet

import hypernetworks as hn
from hypernetworks.conversion import (
    Base,
    Weighted,
    bake,
    extracting,
    lora,
    lora_files,
    merging,
    to_lora,
)
from hypernetworks.errors import FileWriteError, HypernetworkError, NoMatchingWidthError

FULL_DISK = OSError(errno.ENOSPC, "No space left on device")
NO_MEMORY = RuntimeError("DefaultCPUAllocator: not enough memory")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("base") / "small.safetensors", small_unet())


def failing(failure: BaseException, at: int = 3) -> Callable[..., Any]:
    """Something that fails when it is called for the third time."""
    calls = []

    def fail(*arguments: object, **_options: object) -> torch.Tensor:
        calls.append(arguments)
        if len(calls) >= at:
            raise failure
        return torch.zeros(1)

    return fail


@pytest.mark.parametrize(
    ("module", "name", "failure", "error", "said"),
    [
        (lora, "narrowed", MemoryError(), HypernetworkError, "not enough memory for the LoRA"),
        (lora, "narrowed", NO_MEMORY, HypernetworkError, "choose a lower --rank"),
        (lora, "narrowed", KeyboardInterrupt(), KeyboardInterrupt, "^$"),
        (lora_files, "save_flat", FULL_DISK, FileWriteError, "No space left"),
    ],
)
def test_a_lora_appears_whole_or_not_at_all(
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
    failure: BaseException,
    error: type[BaseException],
    said: str,
) -> None:
    target = tmp_path / "style.safetensors"
    target.write_bytes(b"what was there")
    monkeypatch.setattr(module, name, failing(failure, 1))
    with Base(base) as opened, pytest.raises(error, match=said):
        to_lora(opened, [Weighted(network("style", 1))], target)
    assert target.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [target]


def test_too_little_memory_for_a_network_is_said(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Base(base) as opened:
        to_lora(opened, [Weighted(network("style", 1))], tmp_path / "style.safetensors")
        monkeypatch.setattr(extracting.Sums, "add", failing(MemoryError()))
        with pytest.raises(HypernetworkError, match="not enough memory to extract"):
            extracting.from_lora("x", tmp_path / "style.safetensors", opened)
    monkeypatch.setattr(merging, "difference", failing(NO_MEMORY, 1))
    with pytest.raises(HypernetworkError, match="not enough memory to merge"):
        merging.merge("x", [Weighted(network("style", 1))])


@pytest.mark.parametrize("widths", [(768, 12), (2048,)])
def test_a_network_of_another_family_is_refused_by_all(
    base: Path, tmp_path: Path, widths: tuple[int, ...]
) -> None:
    other = Weighted(network("style", 1, hn.Structure((1, 1), dropout=(0, 0)), widths))
    with Base(base) as opened:
        for act in (to_lora, bake):
            with pytest.raises(NoMatchingWidthError, match="style"):
                act(opened, [other], tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_folders_left_by_killed_processes_go_after_a_day(tmp_path: Path) -> None:
    from hypernetworks.conversion.baking import _sweep

    for name, age in (("old", 90_000), ("new", 100)):
        folder = tmp_path / f".baking-{name}.tmp"
        (folder / "unet").mkdir(parents=True)
        (folder / "unet" / "weights").write_bytes(b"x")
        os.utime(folder, (time.time() - age,) * 2)
    (tmp_path / "mine").mkdir()
    _sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".baking-new.tmp", "mine"]
