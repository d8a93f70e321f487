"""What methods are compared on: a frozen model, and images in a style for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import hypernetworks as hn
from hypernetworks.devices import autocast
from hypernetworks.hosts.diffusers.training.frozen_model import FrozenModel
from hypernetworks.hosts.diffusers.training.precision import DTYPES
from hypernetworks.training import Example
from hypernetworks.training.contexts import Contexts

from ..styled import Cell

DRAWN = 8
"""Images per row."""


@dataclass(frozen=True)
class Prompt:
    """An image to generate with every method.

    Attributes:
        text: of the prompt.
        seed: of the noise that it begins with.
    """

    text: str
    seed: int


@dataclass(frozen=True)
class Sampling:
    """How images are generated.

    Attributes:
        steps, guidance: of each image.
        at_once: images in one batch.
    """

    steps: int
    guidance: float
    at_once: int


class Task(ABC):
    """A model with images to learn from, others to measure on, and prompts.

    Args:
        pipeline: of diffusers; nothing else may use it meanwhile.
        model: the same, as training sees it.
        name: of the model, for the table and the files.
        size: width and height of all images, in pixels.
        sampling: of generated images.
        precision: what training computes in: ``fp32``, ``fp16`` or ``bf16``.
        batch: images per step.
    """

    initialisation = "Normal"
    """Of a new hypernetwork, as ``train`` has it for this model."""
    rate_factor = 1.0
    """By which methods' learning rates are multiplied."""
    saves_memory = False
    """Whether activations are computed twice."""

    def __init__(
        self,
        pipeline: Any,
        model: FrozenModel,
        *,
        name: str,
        size: tuple[int, int],
        sampling: Sampling,
        precision: str = "fp32",
        batch: int = 4,
    ) -> None:
        self.pipeline, self.model, self.name = pipeline, model, name
        self.size, self.sampling, self.precision, self.batch = size, sampling, precision, batch
        self.contexts = Contexts(model.encode_texts)
        self.baselines: dict[Cell, Any] = {}

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @abstractmethod
    def learned(self, cell: Cell) -> Sequence[Example]:
        """What is learned from."""

    @abstractmethod
    def unseen(self, cell: Cell) -> Sequence[Example]:
        """Images in the style that nothing is learned from: the loss is measured on them."""

    @abstractmethod
    def plain(self, cell: Cell) -> Sequence[Example]:
        """Images that are not in the style: drift is measured on them."""

    @abstractmethod
    def prompts(self, cell: Cell) -> Sequence[Prompt]:
        """Images to generate, :data:`DRAWN` of them."""

    def second(self, cell: Cell) -> hn.Hypernetwork | None:
        """Another style to stack with, the same one for every method, if there is one."""
        return None

    def figures(self, cell: Cell, images: np.ndarray) -> dict[str, float]:
        """What can be measured on the images of the prompts, by name.

        Args:
            images: ``(count, height, width, 3)`` in [0, 1].
        """
        return {}

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The UNet is frozen and ready to learn on; its own weights come back exactly."""
        with self.model.ready(self.precision, size=self.size):
            if self.saves_memory:
                self.model.save_memory()
            yield

    def autocast(self) -> AbstractContextManager[object]:
        """What predictions are computed in, as ``train`` does."""
        if self.precision == "fp32":
            return nullcontext()
        return autocast(self.device, DTYPES[self.precision])

    def described(self) -> dict[str, Any]:
        """What rows must have in common to be compared, besides their cell."""
        return {
            "model": self.name,
            "size": list(self.size),
            "precision": self.precision,
            "device": self.device.type,
            "batch": self.batch,
        }


@torch.inference_mode()
def generated(
    task: Task, prompts: Sequence[Prompt], words: str = "", output_type: str = "np"
) -> list[Any]:
    """An image ``(height, width, 3)`` in [0, 1] for each prompt, with the UNet as it is now.

    Args:
        words: put before every prompt.
        output_type: ``"latent"`` for latents ``(channels, height, width)`` in fp32 on the CPU.
    """
    found, (width, height), sampling = list[Any](), task.size, task.sampling
    with task.model.at_hand():
        for begin in range(0, len(prompts), sampling.at_once):
            some = prompts[begin : begin + sampling.at_once]
            images = task.pipeline(
                [words + prompt.text for prompt in some],
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance,
                # On the CPU: the same noise on every device.
                generator=[torch.Generator().manual_seed(prompt.seed) for prompt in some],
                output_type=output_type,
                width=width,
                height=height,
            ).images
            found += list(images.float().cpu() if output_type == "latent" else images)
    return found
