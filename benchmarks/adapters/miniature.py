"""The miniature with its own renderings, whose styles and subjects are known exactly."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import hypernetworks as hn
from hypernetworks.hosts.diffusers import MINIATURE_NETWORKS
from hypernetworks.hosts.diffusers.training.job import MINIATURE_INITIALISATION
from hypernetworks.miniature.subjects import subject_names
from hypernetworks.training import Example

from ..styled import Cell, Shown, Styled
from .task import DRAWN, Prompt, Sampling, Task


class MiniatureTask(Task):
    """Images of unseen subjects can be compared with how they should look.

    Args:
        build: folder of ``pictures.npy``, which is rendered there if it is missing.
        batch: images per step.
    """

    initialisation = MINIATURE_INITIALISATION

    def __init__(self, build: Path, batch: int = 4) -> None:
        self.styled = Styled(build)
        size = self.styled.pictures.shape[2]
        super().__init__(
            self.styled.pipeline,
            self.styled.model,
            name="miniature",
            size=(size, size),
            sampling=Sampling(steps=8, guidance=3.0, at_once=DRAWN),
            batch=batch,
        )

    def learned(self, cell: Cell) -> Sequence[Example]:
        """All but what a run of ``train`` would keep for its own validation loss."""
        return self.styled.examples(self.styled.subjects(cell)[0], cell.style)

    def unseen(self, cell: Cell) -> Sequence[Example]:
        """Subjects that no run of any cell has seen."""
        return self.styled.examples(self.styled.tested(), cell.style)

    def plain(self, cell: Cell) -> Sequence[Example]:
        """The same ones without a style."""
        return self.styled.examples(self.styled.tested(), "flat")

    def prompts(self, cell: Cell) -> Sequence[Prompt]:
        """Of unseen subjects."""
        return [Prompt(item.caption, item.subject) for item in self._shown()]

    def second(self, cell: Cell) -> hn.Hypernetwork:
        """A network that ships."""
        style = "night" if cell.style == "sepia" else "sepia"
        return hn.read(MINIATURE_NETWORKS / f"{style}.safetensors")

    def figures(self, cell: Cell, images: np.ndarray) -> dict[str, float]:
        """Recall of subjects, and root mean square distance to the style's rendering, of 255."""
        hits, distances = 0, []
        for image, item in zip(images, self._shown(), strict=True):
            everyone = [Shown(i, item.colour) for i in range(len(subject_names()))]
            wanted = self.styled.pixels(everyone, cell.style).astype(np.float32) / 255
            rows = np.sqrt(((wanted - image) ** 2).mean((1, 2, 3)))
            hits += int(rows.argmin()) == item.subject
            distances.append(float(rows[item.subject]) * 255)
        return {"recall": hits / len(images), "distance": statistics.mean(distances)}

    def _shown(self) -> list[Shown]:
        return self.styled.tested()[:DRAWN]
