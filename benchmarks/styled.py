"""Images in a style, encoded for the miniature: what the benchmarks of training learn and measure.

The images are the miniature's own renderings (``python -m hypernetworks.miniature pictures``).
Every choice of subjects and backgrounds follows from the number of images and the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from hypernetworks.hosts.diffusers import MINIATURE
from hypernetworks.hosts.diffusers.checkpoints.loading import load_checkpoint
from hypernetworks.hosts.diffusers.training.frozen_model import FrozenModel
from hypernetworks.miniature.rendering import on_colour, render, styled
from hypernetworks.miniature.subjects import (
    COLOURS,
    SHIPPED,
    caption,
    is_held_out_from_styles,
    subject_names,
)
from hypernetworks.training import Caption, Example
from hypernetworks.training.contexts import Contexts
from hypernetworks.training.validation import ValidationLoss

VALIDATION = 0.1
"""Share of the images that a run keeps for its own validation loss, as ``train`` does."""
TESTED = 16
"""Images of subjects that no run of any cell has seen; best files are compared on them."""


@dataclass(frozen=True)
class Cell:
    """One data set: a style, how many images, and the seed of everything random."""

    style: str
    images: int
    seed: int

    def __str__(self) -> str:
        return f"{self.style}, {self.images} images, seed {self.seed}"


@dataclass(frozen=True)
class Shown:
    """One image: a subject on a background."""

    subject: int
    colour: str

    @property
    def caption(self) -> str:
        """As a user would describe it."""
        return caption(subject_names()[self.subject], self.colour)


class Styled:
    """The miniature with images in its styles.

    Args:
        build: folder of ``pictures.npy``, which is rendered there if it is missing.
        styles: those that will be asked for.
    """

    def __init__(self, build: Path, styles: Sequence[str] = SHIPPED) -> None:
        path = build / "pictures.npy"
        if not path.exists():
            np.save(path, render(build / "packages"))
        self.pictures: np.ndarray = np.load(path)
        self.styles = tuple(styles)
        self.pipeline: Any = load_checkpoint(MINIATURE, dtype=torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)
        # The same figures, in a tenth less time on a CPU.
        self.pipeline.unet.to(memory_format=torch.channels_last)
        self.model = FrozenModel(self.pipeline)
        self.contexts = Contexts(self.model.encode_texts)
        self._latents: dict[tuple[str, tuple[Shown, ...]], torch.Tensor] = {}

    @contextmanager
    def ready(self) -> Iterator[FrozenModel]:
        """The UNet frozen, in fp32: the figures shall not depend on a processor's bf16."""
        size = self.pictures.shape[2]
        with self.model.ready("fp32", size=(size, size)):
            yield self.model

    def subjects(self, cell: Cell) -> tuple[list[Shown], list[Shown]]:
        """What is learned, and what the run keeps for its own validation loss."""
        random = Random(f"{cell.images} images, seed {cell.seed}")
        known = [i for i, n in enumerate(subject_names()) if not is_held_out_from_styles(n)]
        chosen = random.sample(known, cell.images)
        shown = [Shown(subject, random.choice(list(COLOURS))) for subject in chosen]
        kept = max(1, round(VALIDATION * cell.images))
        return shown[kept:], shown[:kept]

    def tested(self) -> list[Shown]:
        """The same for all cells, so that their figures can be compared."""
        random = Random("tested")
        unseen = [i for i, n in enumerate(subject_names()) if is_held_out_from_styles(n)]
        return [Shown(s, random.choice(list(COLOURS))) for s in random.sample(unseen, TESTED)]

    def pixels(self, shown: Sequence[Shown], style: str) -> np.ndarray:
        """Renderings, RGB uint8 ``(count, height, width, 3)``; the style "flat" is the miniature's
        own.
        """
        rows = []
        for item in shown:
            pictures = self.pictures[:, item.subject : item.subject + 1]
            made = (
                on_colour(pictures[0], item.colour)
                if style == "flat"
                else styled(pictures, style, item.colour)
            )
            rows.append(made[0])
        return np.stack(rows)

    def examples(self, shown: Sequence[Shown], style: str) -> list[Example]:
        """Encoded, once for all runs, with their captions."""
        key = (style, tuple(shown))
        if key not in self._latents:
            pixels = torch.from_numpy(self.pixels(shown, style)).permute(0, 3, 1, 2)
            self._latents[key], _ = self.model.encode_pixels(pixels.float() / 127.5 - 1)
        latents = self._latents[key]
        return [
            Example(item.caption, Caption((item.caption,)), (latents[i],), key=item.caption)
            for i, item in enumerate(shown)
        ]

    def validation(self, shown: Sequence[Shown], style: str, seed: int = 0) -> ValidationLoss:
        """The loss on images, as a run measures it."""
        return ValidationLoss(self.examples(shown, style), self.contexts, seed)
