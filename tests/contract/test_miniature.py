"""The small model that ships: what it was taught, its size, and that it does what its model card
says."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

import hypernetworks as hn
from hypernetworks.hosts.diffusers import MINIATURE, MINIATURE_NETWORKS, Generation, Painter
from hypernetworks.miniature.base import build_tokenizer
from hypernetworks.miniature.rendering import MARGIN, SIZE, on_colour, pixelated
from hypernetworks.miniature.subjects import (
    COLOURS,
    SHIPPED,
    caption,
    is_held_out_from_styles,
    is_held_out_pair,
    spoken,
    subject_names,
    varied_caption,
)


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(None, hn.Library([MINIATURE_NETWORKS]))


def picture(painter: Painter, prompt: str, seed: int = 0) -> np.ndarray:
    result = painter.generate(Generation(prompt=prompt, steps=10, seed=seed))
    assert result.messages == []
    return np.asarray(result.pictures[0].image).astype(float)


def test_enough_subjects_and_colours() -> None:
    names = subject_names()
    assert len(names) == len(set(names)) >= 256
    assert len(COLOURS) >= 8


def test_a_fifth_is_held_out() -> None:
    pairs = [is_held_out_pair(n, c) for n, c in itertools.product(subject_names(), COLOURS)]
    assert 0.19 < np.mean(pairs) < 0.21
    assert not any(is_held_out_pair(n, "white") for n in subject_names())
    assert 0.19 < np.mean([is_held_out_from_styles(n) for n in subject_names()]) <= 0.2


def test_captions() -> None:
    assert spoken("eagle") == "an eagle"
    assert caption("red-apple", "blue") == "a red apple on blue"
    said = {varied_caption("fox", "red", Random(i)) for i in range(50)}
    assert len(said) > 2
    assert all("fox" in s and "red" in s for s in said)


def test_a_tokenizer_that_is_there_is_kept(tmp_path: Path) -> None:
    """A second training would give some words each other's numbers, and a network would learn "bug"
    as "bus"."""
    first = build_tokenizer(tmp_path)
    table = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    bug, bus = table["bug</w>"], table["bus</w>"]
    assert bug in first("a bug").input_ids
    (tmp_path / "vocab.json").write_text(
        json.dumps(table | {"bug</w>": bus, "bus</w>": bug}), encoding="utf-8"
    )
    assert bus in build_tokenizer(tmp_path)("a bug").input_ids


def test_rendering_on_a_colour() -> None:
    empty = np.zeros((SIZE, SIZE, 4), dtype=np.uint8)
    assert np.array_equal(
        np.unique(on_colour(empty, "red").reshape(-1, 3), axis=0), [COLOURS["red"]]
    )
    full = np.full((SIZE, SIZE, 4), 255, dtype=np.uint8)
    assert on_colour(full, "red").min() == 255


def test_a_mosaic_has_square_cells_that_are_solid_or_empty() -> None:
    random = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
    mosaic = pixelated(random, cell=MARGIN)
    cells = mosaic.reshape(SIZE // MARGIN, MARGIN, SIZE // MARGIN, MARGIN, 4)
    assert (cells == cells[:, :1, :, :1]).all()
    assert set(np.unique(mosaic[..., 3])) <= {0, 255}


def test_everything_ships_in_24_megabytes() -> None:
    files = [
        p for folder in (MINIATURE, MINIATURE_NETWORKS) for p in folder.rglob("*") if p.is_file()
    ]
    assert 5e6 < sum(p.stat().st_size for p in files) <= 24e6


@pytest.mark.parametrize("style", SHIPPED)
def test_the_style_networks_are_ordinary_files(style: str) -> None:
    network = hn.read(MINIATURE_NETWORKS / f"{style}.safetensors")
    assert network.widths == (96, 160, 192)
    assert network.dtype == torch.float16
    assert network.provenance.step > 0


@pytest.mark.parametrize("colour", COLOURS)
def test_the_background_has_the_named_colour(painter: Painter, colour: str) -> None:
    corner = np.median(picture(painter, f"a fox on {colour}")[:4].reshape(-1, 3), axis=0)
    distances = {name: np.abs(corner - rgb).sum() for name, rgb in COLOURS.items()}
    assert min(distances, key=lambda name: distances[name]) == colour


@pytest.mark.parametrize("style", SHIPPED)
def test_a_style_grows_with_its_multiplier(painter: Painter, style: str) -> None:
    steps = [picture(painter, f"a penguin on yellow <hypernet:{style}:{m}>") for m in (0, 0.5, 1)]
    far, near = (np.sqrt(np.square(p - steps[-1]).mean()) for p in steps[:2])
    assert far > 5
    assert near < far


def test_ink_is_black_on_the_background(painter: Painter) -> None:
    plain = picture(painter, "a jack o lantern on white")
    ink = picture(painter, "a jack o lantern on white <hypernet:ink:1>")
    colourful = [np.mean(p.max(2) - p.min(2)) for p in (plain, ink)]
    assert colourful[1] < 0.5 * colourful[0]


def test_the_folder_is_an_ordinary_diffusers_folder() -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(MINIATURE, local_files_only=True)
    assert pipeline.unet.config.cross_attention_dim == 192
    assert Path(MINIATURE / "model_index.json").exists()
