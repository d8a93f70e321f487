"""Any checkpoint of Stable Diffusion with folders of images, as ``train`` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import hypernetworks as hn
from hypernetworks.console import warn
from hypernetworks.errors import TrainingDataError
from hypernetworks.hosts.diffusers import Painter
from hypernetworks.hosts.diffusers.conversion.prompts import general_prompts
from hypernetworks.hosts.diffusers.training import TrainingJob, preset_job
from hypernetworks.hosts.diffusers.training.frozen_model import FrozenModel
from hypernetworks.hosts.diffusers.training.images import Images
from hypernetworks.training import Caption, Example
from hypernetworks.training.pictures import LEAST_SPLIT

from ..styled import Cell
from .methods import FULL_SIZE, Sizes
from .task import DRAWN, Prompt, Sampling, Task, generated


class FolderTask(Task):
    """The user's images; what should come out isn't known, so recall and distance aren't measured.

    Args:
        painter: the loaded model.
        folders: of images, or of sub-folders named ``10_name``.
        build: what is encoded is kept below it.
        size: width and height that images are brought to; ``None`` for the model's own.
        precision: see :class:`~.task.Task`.
        batch: images per step.
        steps: sampling steps of generated images.
        validation: share of the images that the loss is measured on.
        second: network to stack with.

    Raises:
        TrainingDataError: the images can't be used, or are fewer than eight.
        TrainingSettingsError: a size that the model can't take.
    """

    def __init__(
        self,
        painter: Painter,
        folders: Sequence[Path],
        build: Path,
        *,
        size: tuple[int, int] | None = None,
        precision: str = "fp32",
        batch: int = 4,
        steps: int = 20,
        validation: float = 0.1,
        second: hn.Hypernetwork | None = None,
    ) -> None:
        self.painter, self._second = painter, second
        own = (painter.default_size, painter.default_size)
        super().__init__(
            painter.pipeline,
            FrozenModel(painter.pipeline),
            name=painter.model_name,
            size=size or own,
            sampling=Sampling(steps, painter.default_cfg, at_once=1),
            precision=precision,
            batch=batch,
        )
        self.model.check_size(*self.size, painter.size_step)
        self.job = self._job(folders, build, validation)
        self.initialisation = self.job.creation.initialisation
        self.rate_factor = 1.0 if painter.is_miniature else FULL_SIZE

        images = self._images(0)
        self.cell = Cell(
            " ".join(f.resolve().name for f in folders), len(images.gathered.pictures), 0
        )
        self.contexts = images.contexts()
        self._encoded: dict[int, tuple[Sequence[Example], Sequence[Example]]] = {}
        self._plain: list[Example] = []
        self.saves_memory = self._plans()

    def _job(self, folders: Sequence[Path], build: Path, validation: float) -> TrainingJob:
        """What ``train`` would do with these folders; only its images are asked for."""
        first, *others = folders
        job = preset_job("style", "benchmark", first, self.painter, other_pictures=tuple(others))
        pictures = replace(
            job.picture_settings,
            width=self.size[0],
            height=self.size[1],
            step=self.painter.size_step,
            validation=validation,
        )
        settings = replace(job.settings, batch=self.batch, precision=self.precision)
        return replace(job, settings=settings, picture_settings=pictures, cache=build / "encoded")

    def _images(self, seed: int) -> Images:
        """Gathered and split, of a seed.

        Raises:
            TrainingDataError: the images can't be used, or none could be kept apart.
        """
        job = replace(self.job, settings=replace(self.job.settings, seed=seed))
        images = Images(job, self.model, _tell, lambda *_: None)
        images.split(None)
        if not images.kept:
            raise TrainingDataError(
                f"there are {len(images.learned)} different images, too few to keep some for the "
                f"loss: give at least {LEAST_SPLIT}"
            )
        return images

    def _plans(self) -> bool:
        """Whether activations are computed twice, for every method, as there is little memory."""
        largest = Sizes.of(self.pipeline.unet).largest
        plan = self.model.plan(self.precision, largest, self.batch, self.size, "whole", "auto")
        if plan.message:
            _tell(plan.message)
        return plan.checkpointing

    def learned(self, cell: Cell) -> Sequence[Example]:
        """What ``train`` would learn from with this seed."""
        return self._examples(cell.seed)[0]

    def unseen(self, cell: Cell) -> Sequence[Example]:
        """What ``train`` would keep for its validation loss, by content and seed."""
        return self._examples(cell.seed)[1]

    def _examples(self, seed: int) -> tuple[Sequence[Example], Sequence[Example]]:
        if seed not in self._encoded:
            images = self._images(seed)
            validation = images.validation(self.contexts)
            assert validation is not None  # some were kept
            learned = images.examples(self.contexts).examples
            self._encoded = {seed: (learned, validation.examples)}
        return self._encoded[seed]

    def plain(self, cell: Cell) -> Sequence[Example]:
        """What the model without any adapter makes of general prompts."""
        if not self._plain:
            prompts = [Prompt(text, seed) for seed, text in enumerate(_general(DRAWN))]
            latents = generated(self, prompts, output_type="latent")
            self._plain = [
                Example(prompt.text, Caption((prompt.text,)), (latent,), key=prompt.text)
                for prompt, latent in zip(prompts, latents, strict=True)
            ]
        return self._plain

    def prompts(self, cell: Cell) -> Sequence[Prompt]:
        """Captions of images that nothing is learned from, at most half, and general prompts."""
        drawn = [e.caption.draw(Random(i)) for i, e in enumerate(self.unseen(cell))]
        own = list(dict.fromkeys(text for text in drawn if text))[: DRAWN // 2]
        texts = [*own, *_general(DRAWN - len(own))]
        return [Prompt(text, seed) for seed, text in enumerate(texts)]

    def second(self, cell: Cell) -> hn.Hypernetwork | None:
        """The one that was named, if any."""
        return self._second


def _general(count: int) -> list[str]:
    """Prompts without a style, of different subjects and kinds."""
    prompts = general_prompts()
    return prompts[:: len(prompts) // count][:count]


def _tell(line: str) -> None:
    warn(f"benchmarks.adapters: {line}")
