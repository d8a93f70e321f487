"""Sheets of images for the documentation: a row per subject, a column per multiplier."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from ..console import say
from ..files import read
from ..files.writing import replace
from ..patching import apply
from ..prompts import Tag

MULTIPLIERS = (0.0, 0.25, 0.5, 0.75, 1.0)
SUBJECTS = ("a penguin on yellow", "a rocket on blue", "a strawberry on green", "a house on pink")
SCALE = 2
HEAD = 28


def strip(
    pipeline: Any, network_path: Path, subjects: Sequence[str] = SUBJECTS, seed: int = 1
) -> Image.Image:
    """A labelled grid over multipliers, with the same seed in each row."""
    network, columns = read(network_path), []
    for multiplier in MULTIPLIERS:
        with torch.inference_mode(), apply(pipeline.unet, [(network, multiplier)]):
            # The seeds are the same for every multiplier, so columns differ by the network alone.
            generators = [torch.Generator().manual_seed(seed + i) for i in range(len(subjects))]
            columns.append(
                pipeline(
                    list(subjects), num_inference_steps=20, guidance_scale=3.0, generator=generators
                ).images
            )

    edge = columns[0][0].width * SCALE
    sheet = Image.new("RGB", (edge * len(columns), edge * len(subjects) + HEAD), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for x, (multiplier, column) in enumerate(zip(MULTIPLIERS, columns, strict=True)):
        label = str(Tag.of(network.name, multiplier))
        draw.text((x * edge + edge / 2, HEAD / 2), label, fill="black", font=font, anchor="mm")
        for y, image in enumerate(column):
            sheet.paste(
                image.resize((edge, edge), Image.Resampling.BICUBIC), (x * edge, HEAD + y * edge)
            )

    return sheet


def draw_strips(pipeline: Any, networks: Path, styles: Sequence[str], folder: Path) -> None:
    """Write ``STYLE.png`` for each style network."""
    pipeline.set_progress_bar_config(disable=True)
    folder.mkdir(parents=True, exist_ok=True)
    for style in styles:
        sheet = strip(pipeline, networks / f"{style}.safetensors")
        replace(folder / f"{style}.png", partial(sheet.save, format="PNG"))
        say(str(folder / f"{style}.png"))
