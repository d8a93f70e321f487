"""One job: from the page's fields to images with their infotext, with progress for the page."""

from __future__ import annotations

import random
import re
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HypernetworkError
from ..hosts.diffusers import Generation, Hires, Result, save_png
from ..prompts import parse
from .job_queue import Update
from .kept import Kept
from .ranges import RANGES

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..hosts.diffusers import Painter
    from .images import Images

LONGEST_PROMPT, MOST_TAGS = 20_000, 200
"""Characters of a prompt, and tags in it.

The text encoder reads all of them, and each tag is looked up.
"""
LARGEST_DRAWN = 2**32 - 1
"""Of the seeds that are drawn; webuis draw no larger ones."""


@dataclass(frozen=True)
class Outcome:
    """The result of a job: its images and its messages."""

    pictures: list[Kept]
    messages: list[str]
    seconds: float


def job_of(
    prompt: str,
    negative: str,
    steps: float,
    cfg: float,
    seed: float | None,
    sampler: str | None,
    batch: float,
    width: float | None,
    height: float | None,
    hires: bool | None = False,
    hires_scale: float | None = 2.0,
    hires_strength: float | None = 0.7,
    upscaler: str | None = None,
    strength: float | None = 0.75,
    image: str | None = None,
) -> Generation:
    """The job that the fields describe. A seed below 0, or none, is drawn here; without a width or
    height, it is the model's own.

    Raises:
        HypernetworkError: a prompt is too long, or has too many tags; a number is out of its range.
    """
    for name, text in (("prompt", prompt or ""), ("negative prompt", negative or "")):
        _check_prompt(name, text)

    # Drawn here and not in the page, so that the infotext has the seed that was used.
    chosen = random.randrange(LARGEST_DRAWN + 1) if seed is None or seed < 0 else int(seed)
    return Generation(
        prompt=prompt or "",
        negative=negative or "",
        steps=int(_within("steps", steps, 20)),
        cfg=float(_within("cfg", cfg, 7.0)),
        seed=int(_within("seed", chosen, 0)),
        batch=int(_within("batch", batch, 1)),
        width=None if width is None else int(_within("width", width, 0)),
        height=None if height is None else int(_within("height", height, 0)),
        sampler=sampler or None,
        image=Path(image) if image else None,
        strength=float(_within("strength", strength, 0.75)),
        hires=_hires(hires_scale, hires_strength, upscaler) if hires else None,
    )


def _hires(scale: float | None, strength: float | None, upscaler: str | None) -> Hires:
    usual = Hires()
    return Hires(
        float(_within("hires_scale", scale, usual.scale)),
        float(_within("hires_strength", strength, usual.strength)),
        upscaler or usual.upscaler,
    )


def _check_prompt(name: str, text: str) -> None:
    if len(text) > LONGEST_PROMPT:
        raise HypernetworkError(
            f"the {name} has {len(text):,} characters: shorten it to {LONGEST_PROMPT:,}"
        )

    count = len(parse(text)[1])
    if count > MOST_TAGS:
        raise HypernetworkError(
            f"the {name} has {count:,} hypernetwork tags: use at most {MOST_TAGS}"
        )


def _within(name: str, value: float | None, otherwise: float) -> float:
    """The number of a field, which may be empty; the API may send anything.

    Raises:
        HypernetworkError: it is out of its range.
    """
    if value is None:
        return otherwise
    if value not in RANGES[name]:
        raise HypernetworkError(RANGES[name].refusal(value))
    return value


def generate(
    painter: Painter,
    job: Generation,
    tell: Callable[[Update], None],
    cancelled: threading.Event,
    folder: Path,
    images: Images | None = None,
) -> Outcome:
    """Generate the images of a job and save them as PNG; when cancelled, stop after the current
    step.

    Args:
        folder: of this run, which ends with the studio.
        images: the user's own folder of images; ``None`` keeps none.
    """
    began, last = time.monotonic(), [0, 0]

    def on_step(done: int, total: int) -> bool:
        last[:] = [done, total]
        left = (time.monotonic() - began) / done * (total - done)
        tell(
            Update(
                done,
                total,
                f"Step {done} of {total}" + (f" · {left:.0f} s left" if left >= 1 else ""),
            )
        )
        return not cancelled.is_set()

    def on_picture(picture: Image) -> None:
        tell(Update(last[0], last[1], f"Step {last[0]} of {last[1]}", picture))

    # The text encoder of a large model takes seconds: the page shows at once that it works.
    tell(Update(note="Reading the prompt …"))
    result = painter.generate(job, on_step, on_picture)
    if last[0] < last[1]:
        result.messages.insert(
            0, f"interrupted after {last[0]} of {last[1]} steps: the image is unfinished"
        )
    # gradio gives out files of this run's folder alone, so the gallery can't show the user's own.
    kept = keep(result, folder)
    if images is not None:
        result.messages += images.keep(kept)
    return Outcome(kept, result.messages, time.monotonic() - began)


def keep(result: Result, folder: Path) -> list[Kept]:
    """Write the images of a result into the folder, under unused names."""
    kept = []
    for picture in result.pictures:
        # The last line has the settings; a prompt may say "Seed: 1", too.
        seed = re.search(r"Seed: (\d+)", picture.infotext.rsplit("\n", 1)[-1])
        path = new_path(folder, f"seed-{seed[1]}" if seed else "picture")
        save_png(picture, path)
        kept.append(Kept(str(path), picture.infotext))
    return kept


def new_path(folder: Path, stem: str) -> Path:
    """A name for a new PNG, in a fresh folder so that it can be plain and yet never taken."""
    return Path(tempfile.mkdtemp(prefix=time.strftime("%H%M%S-"), dir=folder)) / f"{stem}.png"
