"""Images for fitting and measuring a LoRA, and how alike they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from ....errors import HypernetworkError

KEPT_OUT = 0.25
"""Share of the prompts that only the measuring uses."""
MOST_MEASURED = 24
"""Prompts that are measured; images cost time."""
EXAMINED = 16
"""Images on which a training is checked, and prompts for them at most."""
AT_ONCE = 1 << 17
"""Pixels generated at once: several images of a small model, one of a large one."""


@dataclass(frozen=True)
class Sampling:
    """How images are generated for fitting and measuring.

    Attributes:
        prompts: a quarter of them is kept for measuring.
        steps: sampling steps.
        cfg: guidance scale; ``None`` is the pipeline's own default.
        size: width and height in pixels; ``None`` is the model's own.
        multipliers: factors on the networks' multipliers that the LoRA is fitted for.
    """

    prompts: Sequence[str]
    steps: int = 12
    cfg: float | None = None
    size: int | None = None
    multipliers: tuple[float, ...] = (1.0, 0.5)

    def split(self) -> tuple[list[str], list[str]]:
        """Prompts for fitting, and prompts for measuring.

        Raises:
            HypernetworkError: there are too few.
        """
        # a prompt on both sides would be measured on what it was fitted to
        prompts = list(dict.fromkeys(prompt for prompt in self.prompts if prompt.strip()))
        if len(prompts) < 4:
            raise HypernetworkError(
                f"there are {len(prompts)} prompts, and at least 4 are needed: a quarter of them "
                "is kept for measuring"
            )

        # Lists have an order, such as all colors of one subject: every fourth could be one color.
        Random(0).shuffle(prompts)
        every = round(1 / KEPT_OUT)
        return [p for i, p in enumerate(prompts) if i % every], prompts[::every]

    def measured(self) -> list[str]:
        """The prompts that the LoRA is measured on, evenly spread over those kept out."""
        kept = self.split()[1]
        count = min(len(kept), MOST_MEASURED)
        return [kept[i * len(kept) // count] for i in range(count)]

    def learned_and_checked(self) -> tuple[list[str], list[str]]:
        """Prompts that a training learns from, and others that tell whether it gets better."""
        fitting, kept = self.split()
        wanted = min(EXAMINED, max(1, len(fitting) // 6))
        measured = set(self.measured())
        spare = [prompt for prompt in kept if prompt not in measured][:wanted]

        learned = len(fitting) - (wanted - len(spare))
        return fitting[:learned], spare + fitting[learned:]


class Generator:
    """Generates images, and tells how many.

    Args:
        pipeline: a diffusers pipeline.
        sampling: how.
        advance: told of the number of new images.
    """

    def __init__(
        self,
        pipeline: Any,
        sampling: Sampling,
        advance: Callable[[int], object] = lambda _count: None,
    ) -> None:
        self.pipeline, self.sampling, self.advance = pipeline, sampling, advance

    @property
    def cfg(self) -> float:
        """The guidance scale that the pipeline uses."""
        if self.sampling.cfg is not None:
            return self.sampling.cfg
        return float(inspect.signature(self.pipeline.__call__).parameters["guidance_scale"].default)

    def __call__(
        self, prompts: Sequence[str], seeds: Sequence[int] | None = None
    ) -> list[np.ndarray]:
        """An image ``(height, width, 3)`` in [0, 1] for each prompt.

        Args:
            seeds: of the noise; by default the number of the prompt, always the same.
        """
        seeds = range(len(prompts)) if seeds is None else seeds
        return [
            np.asarray(image, dtype=np.float32)
            for made in self._batches(prompts, seeds, "np")
            for image in made
        ]

    def latents(self, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[torch.Tensor]:
        """Without the autoencoder: ``(count, channels, height, width)`` for each batch."""
        return self._batches(prompts, seeds, "latent")

    def _batches(self, prompts: Sequence[str], seeds: Sequence[int], output: str) -> Iterator[Any]:
        # a small model fills a processor only with several images
        pixels = (self.sampling.size or self._own_size()) ** 2
        count = max(1, min(8, AT_ONCE // pixels))

        for begin in range(0, len(prompts), count):
            part = slice(begin, begin + count)
            yield self._batch(prompts[part], seeds[part], output)
            self.advance(len(prompts[part]))

    def _own_size(self) -> int:
        pipeline = self.pipeline
        return int(pipeline.unet.config.sample_size * pipeline.vae_scale_factor)

    def _batch(self, prompts: Sequence[str], seeds: Sequence[int], output: str) -> Any:
        options: dict[str, Any] = {"guidance_scale": self.cfg}
        if self.sampling.size is not None:
            options |= {"width": self.sampling.size, "height": self.sampling.size}
        with torch.inference_mode():
            return self.pipeline(
                list(prompts),
                num_inference_steps=self.sampling.steps,
                # on the CPU, so that all devices begin with the same noise
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                output_type=output,
                **options,
            ).images


def share_of_effect(
    plain: Sequence[np.ndarray], wanted: Sequence[np.ndarray], made: Sequence[np.ndarray]
) -> float:
    """Of the effect on the images, how much came back: 1 for all of it."""
    return 1 - _distance(made, wanted) / max(_distance(plain, wanted), 1e-12)


def _distance(images: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """Root mean square of the differences of pixels."""
    squares = [np.square(a - b).mean() for a, b in zip(images, others, strict=True)]
    return float(np.mean(squares) ** 0.5)


def save_sheet(strips: Sequence[np.ndarray], path: Path) -> None:
    """Write the images of a measurement as one PNG: without networks, with them, and with the LoRA.

    Raises:
        FileWriteError: it can't be written.
    """
    from PIL import Image

    from ....files.writing import replace

    sheet = np.concatenate(list(strips), 0)
    image = Image.fromarray((sheet * 255).round().clip(0, 255).astype(np.uint8))
    replace(path, lambda temporary: image.save(temporary, format="PNG"))
