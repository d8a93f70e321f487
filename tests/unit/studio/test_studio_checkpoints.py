"""The checkpoints that the Model tab offers, and a VAE in place of the model's own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hypernetworks.errors import CheckpointError
from hypernetworks.hosts.diffusers.checkpoints.loading import load_vae
from hypernetworks.studio import checkpoints
from hypernetworks.studio.checkpoints import Checkpoints


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoints, "SMALLEST", 10)
    folder = tmp_path / "models"
    (folder / "sd1" / "a folder").mkdir(parents=True)
    (folder / "sd1" / "a folder" / "model_index.json").write_text("{}")
    (folder / "sd1" / "large.safetensors").write_bytes(b"x" * 20)
    (folder / "sd1" / "lora.safetensors").write_bytes(b"x")
    (folder / "sd1" / "notes.txt").write_bytes(b"x" * 20)
    return folder


def test_folders_offer_files_and_folders_of_diffusers(models: Path) -> None:
    known = Checkpoints([models])
    labels = [label for label, _ in known.choices(anywhere=True)]
    assert labels == ["sd1/large.safetensors", "sd1/a folder"]
    for label, key in known.choices(anywhere=True):
        assert known.path(key, anywhere=True) == models / label


@pytest.mark.skipif(sys.platform != "linux", reason="names are text on this system")
def test_names_that_are_no_text_are_not_offered(models: Path, tmp_path: Path) -> None:
    broken = [models / os.fsdecode(b"caf\xe9.safetensors"), models / os.fsdecode(b"\xff")]
    broken[0].write_bytes(b"x" * 20)
    broken[1].mkdir()
    (broken[1] / "inside.safetensors").write_bytes(b"x" * 20)
    known = Checkpoints([models], tmp_path / "recent.json")
    before = [label for label, _ in known.choices(anywhere=False)]
    assert before == ["sd1/large.safetensors", "sd1/a folder"]
    known.remember(broken[0])
    assert [label for label, _ in known.choices(anywhere=False)] == before


@pytest.mark.parametrize("key", ["0:../secret", "0:/etc/passwd", "1:x", "recent:/etc", "", "x"])
def test_a_key_is_never_a_path_of_the_page(models: Path, key: str) -> None:
    with pytest.raises(CheckpointError, match="not there any more"):
        Checkpoints([models]).path(key, anywhere=False)


def test_the_last_ones_come_first_and_others_see_none(models: Path, tmp_path: Path) -> None:
    memory = tmp_path / "cache" / "recent.json"
    known = Checkpoints([], memory)
    for name in ("lora.safetensors", "large.safetensors", "lora.safetensors"):
        known.remember(models / "sd1" / name)
    labels = [label for label, _ in Checkpoints([], memory).choices(anywhere=False)]
    assert labels == ["lora.safetensors (recent)", "large.safetensors (recent)"]
    assert known.choices(anywhere=True) == []
    (models / "sd1" / "large.safetensors").unlink()
    assert len(known.choices(anywhere=False)) == 1


@pytest.mark.parametrize("content", ["", "{", "[1, null]", '{"a": 1}', "[" * 50_000])
def test_a_damaged_memory_is_empty(tmp_path: Path, content: str) -> None:
    (tmp_path / "recent.json").write_text(content)
    assert Checkpoints([], tmp_path / "recent.json").choices(anywhere=False) == []


def tiny_vae() -> Any:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    return AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)


def test_a_vae_is_read_from_files_and_folders(tmp_path: Path) -> None:
    own, other = tiny_vae(), tiny_vae()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.save_pretrained(tmp_path / "model" / "vae")
    save_file(other.state_dict(), tmp_path / "vae.safetensors")
    for path in (tmp_path / "model", tmp_path / "model" / "vae", tmp_path / "vae.safetensors"):
        found = load_vae(path, own, torch.float32)
        assert torch.equal(found.encoder.conv_in.weight, other.encoder.conv_in.weight)
        assert not found.training


def test_what_is_no_vae_is_said(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "lora.safetensors")
    (tmp_path / "vae.pt").write_bytes(json.dumps({}).encode())
    for name, error in (
        ("lora.safetensors", "different structure"),
        ("vae.pt", "must be a .safetensors"),
        ("none.safetensors", "no such file"),
        ("", "can't be loaded"),
    ):
        with pytest.raises(CheckpointError, match=error):
            load_vae(tmp_path / name, tiny_vae(), torch.float32)


# ------------------------------------------------------------------ dropped on the page


def test_a_dropped_checkpoint_is_found_by_name_and_size(models: Path, tmp_path: Path) -> None:
    known = Checkpoints([models], tmp_path / "recent.json")
    key = known.named("large.safetensors", 20, anywhere=True)
    assert key is not None
    assert known.path(key, anywhere=True) == models / "sd1" / "large.safetensors"
    elsewhere = tmp_path / "other.safetensors"
    elsewhere.write_bytes(b"x" * 30)
    known.remember(elsewhere)
    assert known.named("other.safetensors", 30, anywhere=False) is not None
    for name, size, anywhere in (
        ("large.safetensors", 21, True),
        ("sd1/large.safetensors", 20, True),
        ("a folder", 0, True),
        ("other.safetensors", 30, True),
        ("", 0, False),
    ):
        assert known.named(name, size, anywhere=anywhere) is None


def test_a_dropped_checkpoint_is_looked_for_in_one_walk(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked = list[Path]()
    walk = checkpoints._checkpoints
    monkeypatch.setattr(checkpoints, "_checkpoints", lambda at: walked.append(at) or walk(at))
    assert Checkpoints([models]).named("none.safetensors", 5, anywhere=False) is None
    assert walked == [models]


@pytest.mark.parametrize(
    ("name", "anywhere", "expected"),
    [
        ("a.safetensors", False, "paste its path"),
        ("a.safetensors", True, "--checkpoints"),
        ("a.ckpt", False, "convert it to .safetensors"),
    ],
)
def test_a_dropped_checkpoint_that_is_not_known_says_how_to_open_it(
    name: str, anywhere: bool, expected: str
) -> None:
    assert expected in checkpoints.how_to_open(name, anywhere)


@pytest.mark.parametrize("said", ["", "x", "[1, 2]", '["a"]', '["a", true]', "[" * 9999, "null"])
def test_what_a_page_says_of_a_file_may_be_anything(said: str) -> None:
    assert checkpoints.name_and_size(said) == ("", 0)
    assert checkpoints.name_and_size('["a.safetensors", 7]') == ("a.safetensors", 7)
