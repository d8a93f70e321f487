"""The adapter benchmark on a checkpoint and a folder of images, to its table."""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hypernetworks as hn
from benchmarks.adapters import __main__ as command
from benchmarks.adapters import folder
from benchmarks.adapters.folder import FolderTask
from benchmarks.adapters.methods import Sizes, hypernetwork, methods
from benchmarks.adapters.report import table
from hypernetworks.errors import HypernetworkError, TrainingDataError
from hypernetworks.hosts.diffusers import Painter
from hypernetworks.training import validation

WIDTHS = (32, 48, 64)
STRUCTURE = hn.Structure((1, 2, 1), "relu", activate_output=False)


@pytest.fixture(autouse=True)
def _few_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "LEAST", len(validation.TIMES))
    monkeypatch.setattr(folder, "DRAWN", 2)
    monkeypatch.setattr(command, "MOST_TRIED", 3)
    monkeypatch.setattr(command, "find_spec", lambda _: object())  # nothing here draws curves


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images in one of kohya's folders."""
    found = tmp_path_factory.mktemp("images") / "dark"
    (found / "3_apples").mkdir(parents=True)
    for number in range(10):
        numbers = np.random.default_rng(number).integers(0, 60, (24, 32, 3), dtype=np.uint8)
        path = found / "3_apples" / f"{number}.png"
        Image.fromarray(numbers).save(path)
        path.with_suffix(".txt").write_text(f"a red apple, {'abc'[number % 3]}")
    return found


@pytest.fixture(scope="module")
def task(tiny_folder: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> FolderTask:
    """Of few sampling steps, and with a second network that changes nothing."""
    return FolderTask(
        Painter(tiny_folder, hn.Library([])),
        [images],
        tmp_path_factory.mktemp("build"),
        size=(16, 16),
        steps=1,
        second=hn.Hypernetwork.create("none", STRUCTURE, WIDTHS),
    )


def options(*arguments: str) -> argparse.Namespace:
    return command.parser().parse_args(["images", "--epochs", "1", *arguments])


def parameters_of(task: FolderTask) -> list[torch.Tensor]:
    pipeline = task.pipeline
    return [
        p.detach().clone()
        for part in (pipeline.unet, pipeline.text_encoder, pipeline.vae)
        for p in part.parameters()
    ]


def test_rows_of_a_checkpoint_and_a_folder(task: FolderTask, tmp_path: Path) -> None:
    """Each method that is installed; the model is as it was; what is there isn't done again."""
    before, rows, path = parameters_of(task), list[dict[str, Any]](), tmp_path / "adapters.jsonl"
    only = ["hypernetwork, MLP", "textual"] + ["LoRA", "LoKr", "OFT", "IA3"] * has_peft()
    command.run(task, options("--only", *only), rows, path)

    names = [
        m.name for m in methods(Sizes.of(task.pipeline.unet)) if m.name.startswith(tuple(only))
    ]
    assert [row["method"] for row in rows] == names
    for row in rows:
        assert row["cell"] == ["dark", 10, 0]
        assert row["steps"] == round(9 * 3 / 4)  # one is kept, the others come three times
        assert row["test"] != row["plain_loss"]
        assert row["drift"] > 0
        # The second network changes nothing, so the two together are what the first one is.
        assert row["stacking"] == pytest.approx(0, abs=1e-3)

    assert all(torch.equal(a, b) for a, b in zip(before, parameters_of(task), strict=True))
    assert len(path.read_text().splitlines()) == len(rows)
    command.run(task, options("--only", *only), again := list(rows), path)
    assert again == rows
    with pytest.raises(HypernetworkError, match=r"epochs 1\.0"):
        command.run(task, options("--epochs", "2"), rows, path)

    printed = table(rows)
    assert "| no adapter | 0 | 1 |" in printed
    assert "| – | – |" in printed  # recall and distance can't be measured


def has_peft() -> bool:
    return find_spec("peft") is not None


def test_a_second_network_acts_beside_the_first(task: FolderTask) -> None:
    strong = hn.Hypernetwork.create("strong", STRUCTURE, WIDTHS)
    for parameter in strong.parameters():
        parameter.data.add_(0.05)
    noisy, context = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 48)

    def answer() -> torch.Tensor:
        with torch.no_grad():
            return task.pipeline.unet(noisy, 500, context).sample

    with hypernetwork(STRUCTURE)(task) as adapter:
        for parameter in adapter.parameters:
            parameter.data.add_(0.1)
        with adapter.at(0.5, []):
            one = answer()
        with adapter.at(0.5, [(strong, 0.5)]):
            both = answer()
    with hn.apply(task.pipeline.unet, [(strong, 0.5)]):
        other = answer()
    assert not torch.allclose(both, one)
    assert not torch.allclose(both, other)


def test_rates_that_were_searched_are_used(task: FolderTask, tmp_path: Path) -> None:
    searching = options("--only", "textual", "--search")
    searching.build = tmp_path
    command.run(task, searching, [], tmp_path / "adapters.jsonl")
    found = [json.loads(line) for line in (tmp_path / "rates.jsonl").read_text().splitlines()]
    assert found[0][1] == pytest.approx(2e-2 / 40)  # at full size, the miniature's is too high
    best = min(found, key=lambda row: row[2])[1]

    rows: list[dict[str, Any]] = []
    rates = str(tmp_path / "rates.jsonl")
    command.run(task, options("--only", "textual", "--rates", rates), rows, tmp_path / "a.jsonl")
    assert rows[0]["rate"] == best


def test_too_few_images_are_refused(tiny_folder: Path, images: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted((images / "3_apples").glob("[0-6].png")):
        (few / path.name).write_bytes(path.read_bytes())
    with pytest.raises(TrainingDataError, match=r"there are 7 different images.*at least 8"):
        FolderTask(Painter(tiny_folder, hn.Library([])), [few], tmp_path, size=(16, 16))
