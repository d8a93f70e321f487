"""What the studio's Convert tab does, without a page."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conversion_cases import checkpoint, network, small_unet
from safetensors.torch import load_file

import hypernetworks as hn
from hypernetworks.errors import FileError, FileWriteError, HypernetworkError
from hypernetworks.hosts.diffusers import MINIATURE
from hypernetworks.studio import zipping
from hypernetworks.studio.converting import (
    BAKE,
    EXTRACT,
    LORA,
    MERGE,
    SMALLER,
    TUNED,
    Order,
    Outcome,
    convert,
)
from hypernetworks.studio.job_queue import InterruptedJobError, Update


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("base") / "small.safetensors", small_unet())


@pytest.fixture
def painter(base: Path, tmp_path: Path) -> Any:
    (tmp_path / "lib").mkdir()
    for number, name in enumerate(("ink", "sepia")):
        hn.write(network(name, number), tmp_path / "lib" / f"{name}.safetensors")
    return SimpleNamespace(checkpoint=base, library=hn.Library([tmp_path / "lib"]), default_cfg=3)


def made(painter: Any, folder: Path, order: Order) -> tuple[Outcome, list[Update]]:
    told, run = list[Update](), folder / "run"
    run.mkdir(exist_ok=True)
    return convert(painter, order, run, told.append, threading.Event()), told


def test_linear_networks_become_a_lora_or_a_checkpoint(painter: Any, tmp_path: Path) -> None:
    order = Order(LORA, "both", ("ink", "sepia"), ("0.7", "-0.3"), layout="comfyui")
    outcome, told = made(painter, tmp_path, order)
    assert outcome.path.name == "both.safetensors"
    assert outcome.path.is_relative_to(tmp_path / "run")
    assert any(name.endswith("attn2_to_k.diff") for name in load_file(outcome.path))
    assert told[-1].done == told[-1].total > 0

    baked, _ = made(painter, tmp_path, Order(BAKE, "baked", ("ink",)))
    old, new = load_file(painter.checkpoint), load_file(baked.path)
    changed = [name for name in old if not torch.equal(old[name], new[name])]
    assert baked.messages == [f"{len(changed)} tensors changed"]


def test_a_model_in_a_folder_is_baked_into_a_zip(painter: Any, tmp_path: Path) -> None:
    line = hn.Hypernetwork.create("line", hn.Structure(), (96, 160, 192))
    for parameter in line.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    hn.write(line, tmp_path / "lib" / "line.safetensors")
    painter.checkpoint = None  # the miniature
    baked, _ = made(painter, tmp_path, Order(BAKE, "v1.5 baked", ("line",)))
    assert baked.path.name == "v1.5 baked.zip"
    assert [path.name for path in baked.path.parent.iterdir()] == ["v1.5 baked.zip"]

    with zipfile.ZipFile(baked.path) as archive:
        archive.extractall(tmp_path / "out")
    folder = tmp_path / "out" / "v1.5 baked"
    names = {str(path.relative_to(MINIATURE)) for path in MINIATURE.rglob("*") if path.is_file()}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == names
    (weights,) = (name for name in names if "unet" in name and name.endswith(".safetensors"))
    old, new = load_file(MINIATURE / weights), load_file(folder / weights)
    changed = [name for name in old if not torch.equal(old[name], new[name])]
    assert baked.messages[0] == f"{len(changed)} tensors changed"
    assert changed


def test_a_large_folder_is_left_to_the_command(
    painter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipping, "LARGEST", 1000)
    painter.checkpoint = None
    with pytest.raises(HypernetworkError, match="python -m hypernetworks bake"):
        made(painter, tmp_path, Order(BAKE, "baked", ("ink",)))


def test_networks_are_added_to_the_library(painter: Any, tmp_path: Path) -> None:
    merged, _ = made(painter, tmp_path, Order(MERGE, "both", ("ink", "sepia"), ("0.5",)))
    assert merged.path == tmp_path / "lib" / "both.safetensors"
    assert painter.library.find("both").path == merged.path
    assert merged.messages[0].startswith("the same as applying")
    with pytest.raises(FileWriteError, match="already exists"):
        made(painter, tmp_path, Order(MERGE, "both", ("ink",)))

    lora, _ = made(painter, tmp_path, Order(LORA, "lora", ("ink",)))
    again, _ = made(painter, tmp_path, Order(EXTRACT, "again", source=lora.path))
    assert again.messages[0].startswith("the network has 100.0%")
    assert painter.library.find("again").path == again.path


def test_networks_get_smaller_and_come_out_of_checkpoints(painter: Any, tmp_path: Path) -> None:
    small, _ = made(painter, tmp_path, Order(SMALLER, "small", ("ink",), hidden=0.5))
    assert "of the effect is left out" in small.messages[0]
    assert hn.read(small.path).structure.layer_structure == (1, 0.5, 1)
    with pytest.raises(HypernetworkError, match="the one to make smaller"):
        made(painter, tmp_path, Order(SMALLER, "x", ("ink", "sepia"), hidden=0.5))
    with pytest.raises(HypernetworkError, match="hidden units must be"):
        made(painter, tmp_path, Order(SMALLER, "x", ("ink",)))

    tuned, _ = made(painter, tmp_path, Order(BAKE, "tuned", ("ink",)))
    found, _ = made(painter, tmp_path, Order(TUNED, "found", source=tuned.path))
    assert "of the change of to_k and to_v" in found.messages[0]
    assert painter.library.find("found").path == found.path


@pytest.mark.parametrize(
    ("order", "error", "said"),
    [
        (Order(LORA, "x"), HypernetworkError, "no network is chosen"),
        (Order(EXTRACT, "x"), HypernetworkError, "there is no file"),
        (Order(LORA, "../x", ("ink",)), FileError, "slashes"),
        (Order(LORA, "", ("ink",)), FileError, "."),
        (Order(LORA, "x", ("ink",), ("1", "2")), HypernetworkError, r"\(2 and 1\)"),
        (Order(LORA, "x", ("ink",), ("1@0,0@1",)), HypernetworkError, "changes during sampling"),
    ],
)
def test_what_can_not_be_done_is_said(
    painter: Any, tmp_path: Path, order: Order, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        made(painter, tmp_path, order)
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_an_interrupted_conversion_writes_nothing(painter: Any, tmp_path: Path) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(InterruptedJobError):
        convert(painter, Order(LORA, "x", ("ink",)), tmp_path, lambda _: None, cancelled)
    assert not list(tmp_path.glob("*/x.safetensors"))


def test_fields_become_an_order() -> None:
    from hypernetworks.studio.tabs.convert import order_of  # imports gradio

    order = order_of(BAKE, "", ["a", "b"], "0.5, 1; 0.5", "peft", "cat\n\ndog", 0.0, None)
    assert order.name == "a-b-baked"
    assert order.multipliers == ("0.5", "1", "0.5")
    assert order.prompts == ("cat", "", "dog")
    assert order_of(LORA, "x", None, "", "peft", "", 50.0, Path("y")).source == Path("y")
    assert order_of(SMALLER, "", ["a"], "", "peft", "", 0.0, None, 0.25).name == "a-small"


def test_a_file_of_this_machine_is_read_where_it_is(tmp_path: Path, base: Path) -> None:
    pytest.importorskip("gradio")
    from hypernetworks.studio.checkpoints import Checkpoints
    from hypernetworks.studio.tabs.sources import source_of

    with (tmp_path / "tuned.safetensors").open("wb") as file:
        file.write(base.read_bytes())
        file.truncate(301 << 20)  # it takes no room on the disk
    place: Any = SimpleNamespace(checkpoints=Checkpoints([tmp_path]))
    key, own = "0:tuned.safetensors", f'"{MINIATURE}"'
    for kind in (LORA, BAKE, MERGE, SMALLER):
        assert source_of(kind, place, False, str(base), key, own) is None
    for kind in (EXTRACT, TUNED):
        assert source_of(kind, place, False, None, None, " ") is None
        assert source_of(kind, place, False, str(base), None, "") == base
        assert source_of(kind, place, False, None, None, own) == MINIATURE
        with pytest.raises(HypernetworkError, match="--listen"):
            source_of(kind, place, True, None, None, own)
    assert source_of(EXTRACT, place, False, None, key, own) == MINIATURE

    with pytest.raises(HypernetworkError, match="not there any more"):
        source_of(TUNED, place, True, None, "0:../tuned.safetensors", "")
    for anywhere in (False, True):
        with pytest.raises(HypernetworkError, match=r"tuned\.safetensors"):  # no whole one
            source_of(TUNED, place, anywhere, None, key, "")
