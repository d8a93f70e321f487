"""Measures the miniature: how well it follows a prompt, and how well its networks apply a style.

Every image is compared with renderings of all subjects on the prompted background, by the distance
of their pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..engine.network import Hypernetwork
from ..patching import apply
from .rendering import styled
from .subjects import (
    COLOURS,
    STYLES,
    caption,
    is_held_out_from_styles,
    is_held_out_pair,
    subject_names,
)

MULTIPLIERS = (0.0, 0.25, 0.5, 0.75, 1.0)
CHUNK = 32
"""Images generated in one batch."""


@dataclass(frozen=True)
class Asked:
    """One image to generate: a subject on a background colour, and a seed."""

    subject: int
    colour: str
    seed: int


def shown_pairs(seeds: Iterable[int]) -> list[Asked]:
    """Every subject on one colour that the base model was trained on, per seed."""
    asked = []
    for i, name in enumerate(subject_names()):
        shown = [c for c in COLOURS if not is_held_out_pair(name, c)]
        asked += [Asked(i, shown[(i + seed) % len(shown)], seed) for seed in seeds]
    return asked


def held_out_pairs(seeds: Iterable[int]) -> list[Asked]:
    """Every pair of subject and colour that was kept from the base model, per seed."""
    names = subject_names()
    pairs = [(i, c) for i, n in enumerate(names) for c in COLOURS if is_held_out_pair(n, c)]
    return [Asked(i, c, seed) for i, c in pairs for seed in seeds]


class Measurement:
    """A pipeline measured against renderings.

    Args:
        pipeline: the assembled miniature.
        pictures: RGBA uint8 ``(styles, subjects, SIZE, SIZE, 4)``.
        steps: sampling steps per picture.
        report: called with the numbers of finished and of all images.
    """

    def __init__(
        self,
        pipeline: Any,
        pictures: np.ndarray,
        *,
        steps: int = 20,
        cfg: float = 3.0,
        report: Callable[[int, int], None] | None = None,
    ) -> None:
        self.pipeline, self.steps, self.cfg, self.report = pipeline, steps, cfg, report
        self.pipeline.set_progress_bar_config(disable=True)
        self.renderings = {
            (style, colour): torch.from_numpy(styled(pictures, style, colour)).float().flatten(1)
            / 255
            for style in STYLES
            for colour in COLOURS
        }

    def generate(self, asked: Sequence[Asked]) -> torch.Tensor:
        """Images ``(count, SIZE * SIZE * 3)`` in [0, 1]."""
        names, made = subject_names(), []
        # A seed for each image, so that the figures don't depend on the size of a batch.
        for begin in range(0, len(asked), CHUNK):
            part = asked[begin : begin + CHUNK]
            with torch.inference_mode():
                images = self.pipeline(
                    [caption(names[a.subject], a.colour) for a in part],
                    num_inference_steps=self.steps,
                    guidance_scale=self.cfg,
                    generator=[
                        torch.Generator().manual_seed(1000 * a.seed + a.subject) for a in part
                    ],
                    output_type="np",
                ).images
            made.append(torch.from_numpy(np.asarray(images)).float().flatten(1))
            if self.report is not None:
                self.report(begin + len(part), len(asked))

        return torch.cat(made)

    def distances(self, asked: Sequence[Asked], made: torch.Tensor, style: str) -> torch.Tensor:
        """Root mean square distance of each picture to every subject's rendering: ``(count,
        subjects)``.
        """
        rows = [
            (self.renderings[style, a.colour] - picture).square().mean(1).sqrt()
            for a, picture in zip(asked, made, strict=True)
        ]
        return torch.stack(rows)

    def recall(self, asked: Sequence[Asked], made: torch.Tensor, style: str = "flat") -> float:
        """Share of images that are nearest to the rendering of their own subject."""
        nearest = self.distances(asked, made, style).argmin(1).tolist()
        return _share(n == a.subject for n, a in zip(nearest, asked, strict=True))

    def background(self, asked: Sequence[Asked], made: torch.Tensor) -> float:
        """Share of images whose border is nearest to the prompted colour."""
        palette = torch.tensor(list(COLOURS.values())).float() / 255
        edge = int((made.shape[1] / 3) ** 0.5)
        pictures = made.view(-1, edge, edge, 3)
        # The median, since a subject may touch the border.
        border = torch.cat(
            [pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]], 1
        )
        nearest = torch.cdist(border.median(1).values, palette).argmin(1).tolist()
        return _share(list(COLOURS)[n] == a.colour for n, a in zip(nearest, asked, strict=True))

    def base_figures(self, seeds: Sequence[int]) -> dict[str, float]:
        """Recall and background without a network, for trained and for held-out pairs."""
        figures = {}
        for kind, asked in (("shown", shown_pairs(seeds)), ("held out", held_out_pairs(seeds))):
            made = self.generate(asked)
            figures[f"recall, {kind} pairs"] = self.recall(asked, made)
            figures[f"background, {kind} pairs"] = self.background(asked, made)
        return figures

    def style_figures(
        self, network: Hypernetwork, style: str, seeds: Sequence[int]
    ) -> dict[str, float]:
        """How well a network applies its style: all subjects, and those it wasn't trained on."""
        asked, figures = shown_pairs(seeds), {}
        unseen = [
            i for i, a in enumerate(asked) if is_held_out_from_styles(subject_names()[a.subject])
        ]
        for multiplier in MULTIPLIERS:
            with apply(self.pipeline.unet, [(network, multiplier)]):
                made = self.generate(asked)
            own = torch.tensor([a.subject for a in asked])[:, None]
            styled = self.distances(asked, made, style)
            distance = styled.gather(1, own)[:, 0]
            figures[f"distance at {multiplier:g}"] = float(distance.mean()) * 255
            figures[f"distance at {multiplier:g}, unseen"] = float(distance[unseen].mean()) * 255

        # After the loop, distance and styled are those of multiplier 1.
        nearer = (distance < self.distances(asked, made, "flat").gather(1, own)[:, 0]).float()
        recalled = (styled.argmin(1) == own[:, 0]).float()
        for name, share in (("nearer to the style", nearer), ("style recall", recalled)):
            figures[name] = float(share.mean())
            figures[f"{name}, unseen"] = float(share[unseen].mean())

        return figures


def _share(hits: Iterable[bool]) -> float:
    values = list(hits)
    return sum(values) / len(values)
