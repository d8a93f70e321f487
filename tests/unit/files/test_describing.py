"""Looking at a file without its numbers says the same as reading it, and refuses the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import Recipe
from unit.files.containers import TORCH_CONTAINERS, save_legacy, save_safetensors, save_zip
from unit.files.test_variants import REFUSED, VARIANTS

import hypernetworks as hn
from hypernetworks.errors import HypernetworkError
from hypernetworks.files import Description, read_description
from hypernetworks.files.opened import OpenedFile

Save = Callable[[object, Path], Path]


def outcome(
    look: Callable[[Path], hn.Hypernetwork | Description], path: Path
) -> tuple[object, ...]:
    """What a way of looking at a file finds or says."""
    try:
        found = look(path)
    except HypernetworkError as error:
        return type(error), str(error)
    return found.name, found.structure, found.widths, found.dtype, found.provenance


def agrees(path: Path) -> None:
    """Both say the same of a file, good or bad."""
    assert outcome(read_description, path) == outcome(hn.read, path)


@pytest.mark.parametrize("container", TORCH_CONTAINERS)
def test_all_variants(container: str, tmp_path: Path) -> None:
    for variant, make in VARIANTS.items():
        agrees(TORCH_CONTAINERS[container](make()[0], tmp_path / f"{variant}.pt"))


@pytest.mark.parametrize("container", TORCH_CONTAINERS)
def test_all_refusals(container: str, tmp_path: Path) -> None:
    refused = 0
    for case, (content, *_) in REFUSED.items():
        path = TORCH_CONTAINERS[container](
            content() if callable(content) else content, tmp_path / f"{case}.pt"
        )
        agrees(path)
        with pytest.raises(HypernetworkError):
            read_description(path)
        refused += 1
    assert refused > 10


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_safetensors])
@given(cut=st.floats(0, 1), at=st.floats(0, 1), value=st.integers(0, 255))
def test_damaged_files(save: Save, cut: float, at: float, value: int, tmp_path: Path) -> None:
    path, healthy = tmp_path / "a.pt", tmp_path / "healthy.pt"
    if not healthy.exists():
        save(Recipe((8, 16)).content(), healthy)
    content = bytearray(healthy.read_bytes())
    content[int(at * (len(content) - 1))] = value
    path.write_bytes(content)
    agrees(path)
    path.write_bytes(content[: int(cut * len(content))])
    agrees(path)


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_safetensors])
def test_only_kilobytes_are_read(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, count = save(Recipe((768,)).content(), tmp_path / "a.pt"), 0
    original = OpenedFile.readinto

    def counted(file: OpenedFile, buffer: bytearray) -> int:
        nonlocal count
        got = original(file, buffer) or 0
        count += got
        return got

    monkeypatch.setattr(OpenedFile, "readinto", counted, raising=False)
    hn.read(path)
    assert count > 4_000_000, "of numbers"
    count = 0
    assert read_description(path).widths == (768,)
    assert count < 20_000


def test_a_step_that_is_a_tensor_is_read(tmp_path: Path) -> None:
    path = save_zip(Recipe().content() | {"step": torch.tensor(7000)}, tmp_path / "a.pt")
    assert read_description(path).provenance.step == 7000
