"""Captions from a model: images that can't be read, interruptions, and rotated photos."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")

from hypernetworks.errors import TrainingDataError
from hypernetworks.files.images import open_image
from hypernetworks.hosts.diffusers.training import captioner
from hypernetworks.hosts.diffusers.training.captioner import Captioner, with_captions
from hypernetworks.training.gathering import Picture, gather


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    """Five without words; the fourth is cut off."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5):
        numbers = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(numbers).save(folder / f"IMG_{number:04}.png")
    cut = folder / "IMG_0003.png"
    cut.write_bytes(cut.read_bytes()[:2000])
    return gather([folder]).pictures


class Stand:
    """Reads images as the captioner does; only the model is left out."""

    def caption(self, path: Path) -> str:
        with open_image(path) as image:
            image.convert("RGB")
        return f"caption of {path.stem}"


def described(pictures: list[Picture], run: Path, **options: Any) -> list[Picture]:
    return with_captions(pictures, run, Stand, lambda *_: None, **options)  # type: ignore[arg-type]


def written(run: Path) -> list[str]:
    return sorted(json.loads((run / "captions.json").read_text(encoding="utf-8")).values())


def test_images_that_can_not_be_read_are_named(pictures: list[Picture], tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingDataError, match=r"^IMG_0003\.png: .*damaged"):
        described(pictures, run)
    assert written(run) == [f"caption of IMG_000{number}" for number in (0, 1, 2, 4)]


def test_they_are_left_out_where_asked(pictures: list[Picture], tmp_path: Path) -> None:
    skipped: list[tuple[str, str]] = []
    found = described(pictures, tmp_path / "run", skipped=skipped)
    assert [p.words.text for p in found] == [f"caption of IMG_000{n}" for n in (0, 1, 2, 4)]
    assert [name for name, _ in skipped] == ["IMG_0003.png"]


def test_an_interruption_loses_no_caption(pictures: list[Picture], tmp_path: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_captions(pictures, tmp_path / "run", Stand, stop)  # type: ignore[arg-type]
    assert written(tmp_path / "run") == ["caption of IMG_0000", "caption of IMG_0001"]


def test_captions_are_written_as_they_come(
    pictures: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captioner, "WRITE_EVERY", 2)
    counts = []

    def count(done: int, _total: int) -> None:
        if (tmp_path / "run" / "captions.json").exists():
            counts.append((done, len(written(tmp_path / "run"))))

    with_captions(pictures, tmp_path / "run", Stand, count, [])  # type: ignore[arg-type]
    assert counts == [(2, 2), (3, 2), (4, 3), (5, 3)]


def test_rotated_photos_are_described_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 32))
    exif = image.getexif()
    exif[0x112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    seen: list[tuple[int, int]] = []

    class Inputs(dict[str, Any]):
        def to(self, _device: object) -> Inputs:
            return self

    def process(images: Image.Image, **_: object) -> Inputs:
        seen.append(images.size)
        return Inputs()

    process.batch_decode = lambda *_, **__: ["a  photo"]  # type: ignore[attr-defined]
    made = Captioner.__new__(Captioner)
    made._processor, made._device = process, torch.device("cpu")
    made._model = SimpleNamespace(generate=lambda **_: [])
    assert made.caption(tmp_path / "a.jpg") == "a photo"
    assert seen == [(32, 64)]
