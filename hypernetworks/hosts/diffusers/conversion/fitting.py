"""From networks to the LoRA that is nearest, and how near it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....conversion import Base, Converted, Weighted
from ....conversion.lora import check_target, reports_of, write_lora
from ....conversion.lora_files import DTYPES, Narrow, Part
from ....conversion.low_rank import FULL, Factors, Rank
from ....conversion.weighted import enough_memory
from ....patching import apply
from .distilling import Student, Trained, Training, distil, images_for, rank_within
from .least_squares import Sums, added, changes_of, noted, part_of, scaled
from .sampling import Generator, Sampling, share_of_effect

METHODS = ("least-squares", "distill")
MOST_NOTED = 48
"""Prompts that contexts are noted of, where a training follows."""


@dataclass(frozen=True)
class Fitted:
    """A LoRA that stands for networks that aren't linear.

    Attributes:
        converted: what was written.
        shares: how much of the networks' effect on the images it has, on prompts that it was not
            fitted to, by factor on the multipliers: 1 less the distance to the right images, as a
            share of the distance between these and those without networks.
        strips: of each such prompt, the images without networks, with them, and with the LoRA,
            side by side, at the first factor.
        training: how it went, if there was one.
    """

    converted: Converted
    shares: Mapping[float, float]
    strips: list[np.ndarray]
    training: Trained | None = None

    @property
    def steps(self) -> int:
        """Of the training."""
        return self.training.steps if self.training is not None else 0

    @property
    def share(self) -> float:
        """At the first factor."""
        return next(iter(self.shares.values()))

    def said(self) -> list[str]:
        """The shares in words, a line for each factor, and what else is to be known."""
        found = []
        for factor, share in self.shares.items():
            at = f" at {factor:g}" if len(self.shares) > 1 else ""
            found.append(
                f"{share:.1%} of the effect on the images{at}, on prompts kept out of the fit"
            )
        if self.training is None or not self.training.steps:
            return found
        if not self.training.is_better:
            found.append(
                "the training didn't improve images of other prompts, so the LoRA is what least "
                "squares found: more prompts or more training steps may help"
            )
        elif self.training.is_lowered:
            found.append(
                "the learning rate was too high for this model, and was lowered to "
                f"{self.training.rate:.1g}"
            )
        return found


def fit_lora(
    pipeline: Any,
    base: Base,
    networks: Sequence[Weighted],
    target: Path,
    sampling: Sampling,
    *,
    rank: Rank = FULL,
    layout: str = "kohya",
    dtype: str = "fp16",
    training: Training | None = None,
    on_progress: Callable[[int, int], object] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Fitted:
    """Write the LoRA that is nearest to networks, linear or not.

    Args:
        pipeline: the model of ``base``, as a diffusers pipeline.
        base: the same on the disk.
        networks: in the order of application.
        target: a ``.safetensors`` file.
        rank: without training, as in :func:`~hypernetworks.conversion.to_lora`.
        layout, dtype: as there.
        training: how the LoRA is distilled after the least squares; ``None`` for not at all.
        on_progress: told (images and training steps done, all of them).
        stop: asked whether to end the training now; what it has learned is written.

    Raises:
        NoMatchingWidthError: a network for another model.
        HypernetworkError: too few prompts, not enough memory.
    """
    check_target(target, layout, dtype)
    base.check_fit([weighted.network for weighted in networks])
    learned, checked = sampling.learned_and_checked() if training else (sampling.split()[0], [])
    # a training goes on from there, so that a rough beginning is enough
    noted_of = learned[:MOST_NOTED] if training else learned
    kept = sampling.measured()
    progress = _Progress(_work(sampling, noted_of, kept, training), on_progress)
    generator = Generator(pipeline, sampling, progress.advance)
    trained: Trained | None = None

    with enough_memory("to fit the LoRA: use a smaller --size or --batch, or fewer --prompts"):
        again = partial(generator, noted_of)
        sums = noted(pipeline.unet, base, networks, sampling.multipliers, again)
        lora: list[Part | Narrow]
        if training is None:
            lora = _nearest(base, sums, rank)
        else:
            student = _student(pipeline.unet, base, networks, sums, training, DTYPES[dtype])
            tell = partial(progress.advance, 1)
            trained = distil(
                student, networks, generator, learned, checked, training, on_step=tell, stop=stop
            )
            lora = [*student.parts()]
        shares, strips = _measured(generator, networks, kept, lora, DTYPES[dtype])

    fit = _record(sampling, training, trained, len(learned), shares)
    converted = _written(base, networks, target, lora, fit, layout, dtype)
    return Fitted(converted, shares, strips, trained)


def _work(
    sampling: Sampling, noted_of: Sequence[str], kept: Sequence[str], training: Training | None
) -> int:
    """Images and training steps."""
    work = (len(noted_of) + 2 * len(kept)) * len(sampling.multipliers) + len(kept)
    if training:
        work += images_for(training, sampling.multipliers) + training.steps
    return work


def _written(
    base: Base,
    networks: Sequence[Weighted],
    target: Path,
    lora: Sequence[Part | Narrow],
    fit: Mapping[str, Any],
    layout: str,
    dtype: str,
) -> Converted:
    first = next(iter(fit["shares_of_the_effect"].values()))

    how = f"{fit['method']}; {first:.1%} of the effect on the images, on prompts kept out"
    reports = [report for part in lora for report in reports_of(part)]

    return write_lora(
        base, networks, target, lora, reports, layout=layout, dtype=dtype, how=how, fit=fit
    )


class _Progress:
    """Counts images and steps."""

    def __init__(self, total: int, tell: Callable[[int, int], object] | None) -> None:
        self.total, self.tell, self.done = total, tell, 0

    def advance(self, count: int) -> None:
        """So many more are done."""
        self.done += count
        if self.tell is not None:
            self.tell(self.done, self.total)


@torch.no_grad()
def _nearest(base: Base, sums: Mapping[str, Sums], rank: Rank) -> list[Part | Narrow]:
    """What least squares found."""
    layers = [layer for layer in base.layers if layer.path in sums]
    return [part_of(base, layer, sums[layer.path], rank) for layer in layers]


def _student(
    unet: torch.nn.Module,
    base: Base,
    networks: Sequence[Weighted],
    sums: Mapping[str, Sums],
    training: Training,
    dtype: torch.dtype,
) -> Student:
    """The LoRA at the start of its training: what least squares found without biases, which not all
    programs load."""
    # the promise: who has room for the network has room for the LoRA
    size = sum(p.nbytes for weighted in networks for p in weighted.network.parameters())
    rank = training.rank or rank_within(unet, base, size, dtype.itemsize)

    start: dict[str, Factors] = {}
    with torch.no_grad():
        for layer in base.layers:
            if layer.path not in sums:
                continue
            part = part_of(base, layer, sums[layer.path], Rank(rank), shift=False)
            for leaf, change in (("to_k", part.key), ("to_v", part.value)):
                if isinstance(change, Factors):
                    start[f"{layer.path}.{leaf}"] = change

    return Student(unet, base, rank, start, training.seed)


def _measured(
    generator: Generator,
    networks: Sequence[Weighted],
    kept: Sequence[str],
    lora: Sequence[Part | Narrow],
    dtype: torch.dtype,
) -> tuple[dict[float, float], list[np.ndarray]]:
    """The shares of the effect by factor, and the images at the first of them."""
    unet, shares, strips = generator.pipeline.unet, dict[float, float](), list[np.ndarray]()
    # the same seeds each time: only what the networks and the LoRA do differs
    plain = generator(kept)

    for factor in generator.sampling.multipliers:
        with apply(unet, scaled(networks, factor)):
            wanted = generator(kept)
        with added(unet, changes_of(lora, dtype, factor)):
            made = generator(kept)
        shares[factor] = share_of_effect(plain, wanted, made)
        strips = strips or [np.concatenate(row, 1) for row in zip(plain, wanted, made, strict=True)]

    return shares, strips


def _record(
    sampling: Sampling,
    training: Training | None,
    trained: Trained | None,
    prompts: int,
    shares: Mapping[float, float],
) -> dict[str, Any]:
    """How it was made, for the file's metadata."""
    record: dict[str, Any] = {
        "method": "least squares" if training is None else "distilling",
        "prompts": prompts,
        "sampling_steps": sampling.steps,
        "multipliers": list(sampling.multipliers),
        "shares_of_the_effect": {str(factor): round(share, 4) for factor, share in shares.items()},
    }

    if training is not None and trained is not None:
        # With the seed, so that the same command gives the same file.
        record |= {
            "steps": trained.steps,
            "learning_rate": training.rate,
            "last_learning_rate": trained.rate,
            "seed": training.seed,
        }
    return record
