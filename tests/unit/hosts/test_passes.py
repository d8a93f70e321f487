"""Image to image, the hires pass, and single blocks, on the miniature."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

import hypernetworks as hn
from hypernetworks.errors import ImageError
from hypernetworks.hosts.diffusers import MINIATURE_NETWORKS, Generation, Hires, Painter, Result
from hypernetworks.hosts.diffusers.passes import UPSCALERS, hires_size

QUICK = Generation("a cat on red", steps=2, width=48, height=48, cfg=1.0)


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(None, hn.Library([MINIATURE_NETWORKS]))


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A yellow image, wider than high, with a red edge that is cropped away."""
    path = tmp_path_factory.mktemp("images") / "drawing.png"
    image = Image.new("RGB", (200, 100), "red")
    image.paste((255, 220, 0), (40, 0, 160, 100))
    image.save(path)
    return path


def only(result: Result) -> Image.Image:
    assert result.messages == []
    (picture,) = result.pictures
    return picture.image


def change(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def test_an_image_is_the_beginning_and_the_strength_how_much_stays(
    painter: Painter, drawing: Path
) -> None:
    steps: list[tuple[int, int]] = []
    job = replace(QUICK, image=drawing, steps=4)
    weak = painter.generate(replace(job, strength=0.25), lambda *at: steps.append(at))
    strong = only(painter.generate(replace(job, strength=1.0)))
    assert steps == [(1, 1)]
    assert "Denoising strength: 0.25" in weak.pictures[0].infotext
    yellow = Image.new("RGB", (48, 48), (255, 220, 0))
    assert change(only(weak), yellow) < 40
    assert change(strong, yellow) > change(only(weak), yellow)


def test_hires_enlarges_and_uses_the_tags_own_multiplier(painter: Painter) -> None:
    hires = Hires(2, 0.5, "Latent")
    tag = "a cat on red <hypernet:ink:0{}>"
    plain = [only(painter.generate(replace(QUICK, prompt=tag.format(hr)))) for hr in ("", ":hr=1")]
    assert change(*plain) == 0  # without a hires pass, hr= means nothing

    steps: list[tuple[int, int]] = []
    larger = [
        painter.generate(
            replace(QUICK, prompt=tag.format(hr), hires=hires), lambda *at: steps.append(at)
        )
        for hr in ("", ":hr=1")
    ]
    assert steps[:3] == [(1, 3), (2, 3), (3, 3)]
    assert only(larger[0]).size == (96, 96)
    assert change(only(larger[0]), only(larger[1])) > 1
    for part in ("Size: 48x48", "Hires upscale: 2", "Hires upscaler: Latent"):
        assert part in larger[0].pictures[0].infotext


@pytest.mark.parametrize("upscaler", UPSCALERS[1:])
def test_every_upscaler_makes_images_of_a_batch_as_alone(painter: Painter, upscaler: str) -> None:
    job = replace(QUICK, steps=1, hires=Hires(1.5, 1.0, upscaler), seed=3)
    both = painter.generate(replace(job, batch=2)).pictures
    alone = only(painter.generate(replace(job, seed=4)))
    assert alone.size == hires_size((48, 48), Hires(1.5), painter.size_step)
    assert change(both[1].image, alone) < 2


def test_a_job_that_is_stopped_in_the_first_pass_has_its_image(painter: Painter) -> None:
    job = replace(QUICK, hires=Hires())
    stopped = painter.generate(job, lambda done, _: done < 1)
    assert stopped.pictures[0].image.size == (48, 48)
    assert "Interrupted after: 1 of 3 steps" in stopped.pictures[0].infotext


def test_networks_leave_out_a_block(painter: Painter) -> None:
    job = replace(QUICK, prompt="a cat on red <hypernet:ink:1>")
    whole = only(painter.generate(job))
    part = painter.generate(replace(job, block_off="OUT02"))
    assert change(whole, only(part)) > 1
    assert "Hypernetworks not in block: OUT02" in part.pictures[0].infotext
    assert change(whole, only(painter.generate(replace(job, block_off="OUT09")))) == 0


@pytest.mark.parametrize(
    ("hires", "strength", "error"),
    [
        (Hires(upscaler="Magic"), 0.5, "no upscaler"),
        (Hires(scale=100), 0.5, "smaller scale"),
        (Hires(strength=0.1), 0.5, "at least 0.5"),
        (None, 0.1, "no step of 2"),
        (None, float("nan"), "at most 1"),
    ],
)
def test_what_is_not_possible(
    painter: Painter, drawing: Path, hires: Hires | None, strength: float, error: str
) -> None:
    image = drawing if hires is None else None
    with pytest.raises(hn.HypernetworkError, match=error):
        painter.generate(replace(QUICK, hires=hires, image=image, strength=strength))


def test_not_both_and_only_images(painter: Painter, drawing: Path, tmp_path: Path) -> None:
    with pytest.raises(hn.HypernetworkError, match="new images only"):
        painter.generate(replace(QUICK, hires=Hires(), image=drawing))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageError):
        painter.generate(replace(QUICK, image=tmp_path / "text.png"))
