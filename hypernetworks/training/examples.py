"""Examples to learn from: latents and captions that are encoded once, and the order in which a run
meets them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import torch

from ..errors import TrainingDataError
from .captions import Caption
from .contexts import Contexts
from .seeding import mixed, sample_noise, sample_random


@dataclass(frozen=True)
class Batch:
    """What one forward pass learns from.

    Attributes:
        latents: clean latents ``(batch, channels, height, width)``.
        context: text encoder states ``(batch, tokens, dim)``.
        weights: loss weights ``(batch, 1, height, width)`` with mean 1 per example; ``None`` is 1
            everywhere.
        added: whatever else the model family needs, ``(batch, …)`` each.
    """

    latents: torch.Tensor
    context: torch.Tensor
    weights: torch.Tensor | None = None
    added: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        weights = None if self.weights is None else self.weights.to(device)
        added = {key: value.to(device) for key, value in self.added.items()}
        return Batch(self.latents.to(device), self.context.to(device), weights, added)


@dataclass(frozen=True)
class Example:
    """One image, encoded.

    Attributes:
        name: for messages.
        caption: what may be said of it.
        latents: ``(channels, height, width)`` of each version of it (crops, mirrored or not), all
            of one shape.
        spread: standard deviations of the same shape, where latents are drawn rather than fixed.
        weights: loss weights ``(1, height, width)`` of each version, with the example's weight as
            their mean.
        repeats: how often it comes in an epoch.
        key: of the image's content.
        frames: of each version, what SDXL is told of its crop: height and width of the whole image,
            top and left.
    """

    name: str
    caption: Caption
    latents: tuple[torch.Tensor, ...]
    spread: tuple[torch.Tensor, ...] | None = None
    weights: tuple[torch.Tensor, ...] | None = None
    repeats: int = 1
    key: str = ""
    frames: tuple[tuple[int, ...], ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its latents."""
        return tuple(self.latents[0].shape)


class Order:
    """Which example each sample of a run is: all of them once per epoch, or as often as they are
    repeated.

    Samples that are learned from in one step are of one shape as far as possible. What is left of a
    shape, fewer than a step takes, shares steps with what is left of others; so none comes more
    often than another.

    Args:
        shapes: of each example.
        step: samples of one step.
        seed: of the order.
        repeats: of each example; none for once.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        step: int,
        seed: int,
        repeats: Sequence[int] = (),
    ) -> None:
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, shape in enumerate(shapes):
            groups.setdefault(shape, []).extend([index] * (repeats[index] if repeats else 1))
        self._groups, self._step, self._seed = list(groups.values()), step, seed
        self._rank = {index: rank for rank, group in enumerate(self._groups) for index in group}
        self._plans: dict[int, list[int]] = {}
        self.epoch_length = sum(map(len, self._groups))

    def example(self, sample: int) -> int:
        """Index of the example that sample ``sample`` of the run is."""
        return self._plan(sample // self.epoch_length)[sample % self.epoch_length]

    def _plan(self, epoch: int) -> list[int]:
        if epoch not in self._plans:
            # A step may reach back into the epoch before, never further.
            if len(self._plans) > 2:
                self._plans.clear()
            random = Random(mixed("order", self._seed, epoch))
            self._plans[epoch] = self._planned(random, epoch * self.epoch_length)
        return self._plans[epoch]

    def _planned(self, random: Random, start: int) -> list[int]:
        """The examples of the epoch that begins with sample ``start``, which may be in the middle
        of a step.
        """
        if len(self._groups) == 1:
            return random.sample(self._groups[0], len(self._groups[0]))

        whole, left = list[list[int]](), list[int]()
        for group in self._groups:
            row = random.sample(group, len(group))
            parts = [row[i : i + self._step] for i in range(0, len(row), self._step)]
            left += parts.pop() if len(parts[-1]) < self._step else []
            whole += parts

        # What is left of each shape is mixed, so that no image comes more often than another.
        random.shuffle(left)
        missing = -start % self._step  # of the step that the epoch before has begun
        while whole and len(left) < missing:
            left += whole.pop(random.randrange(len(whole)))
        first, left = left[:missing], left[missing:]
        steps = [left[i : i + self._step] for i in range(0, len(left), self._step)]
        last = steps.pop() if steps and len(steps[-1]) < self._step else []
        steps = [sorted(step, key=self._rank.__getitem__) for step in steps] + whole
        random.shuffle(steps)
        return [*first, *(index for step in steps for index in step), *last]


class Examples:
    """Everything that a run learns from: sample number -> example, version and caption, by the seed
    alone.

    Args:
        examples: at least one.
        contexts: encodes captions and keeps them.
        batch: samples of one step, over all processes and passes.
        caption_dropout: share of samples with an empty caption.
        seed: of order, captions and versions.

    Raises:
        TrainingDataError: no examples.
    """

    AHEAD = 256
    """Samples whose captions are encoded together, ahead of their use."""

    def __init__(
        self,
        examples: Sequence[Example],
        contexts: Contexts,
        *,
        batch: int = 1,
        caption_dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not examples:
            raise TrainingDataError("there is nothing to train on: no examples were given")

        self.examples, self.contexts, self.seed = tuple(examples), contexts, seed
        self.caption_dropout = caption_dropout
        self.order = Order(
            [example.shape for example in examples], batch, seed, [e.repeats for e in examples]
        )
        # Few captions are encoded at once; many, or drawn ones, ahead of their use.
        self._prepared = 0
        ways = [example.caption.ways() for example in self.examples]
        if all(way is not None for way in ways):
            texts = dict.fromkeys(text for way in ways for text in way or ())
            if len(texts) <= self.AHEAD:
                self.contexts.prepare(["", *texts])

    def prepare(self, start: int, end: int) -> None:
        """Make sure that the captions of samples ``start`` to ``end`` are encoded, and encode well
        ahead if not.
        """
        if end > self._prepared or start < self._prepared - self.AHEAD:
            self._prepared = max(end, start + self.AHEAD)
            self.contexts.prepare(self._draw(n)[2] for n in range(start, self._prepared))

    def parts(self, samples: Sequence[int]) -> list[list[int]]:
        """The samples of these numbers by shape: each list can be one forward pass."""
        found: dict[tuple[int, ...], list[int]] = {}
        for sample in samples:
            shape = self.examples[self.order.example(sample)].shape
            found.setdefault(shape, []).append(sample)
        return list(found.values())

    def batch(self, samples: Sequence[int]) -> Batch:
        """The samples of these numbers, all of one shape, on the device that their latents are
        on.
        """
        # Drawn by number alone, so a batch of four equals four batches of one.
        drawn = [self._draw(sample) for sample in samples]
        latents = torch.stack(
            [self._latents(n, e, v) for n, (e, v, _) in zip(samples, drawn, strict=True)]
        )

        weights = None
        if any(example.weights is not None for example, _, _ in drawn):
            weights = torch.stack([_weights(example, version) for example, version, _ in drawn])

        conditions = self.contexts.stack([text for _, _, text in drawn])
        context = conditions.pop("context")
        if conditions and all(example.frames for example, _, _ in drawn):  # SDXL's other conditions
            frames = [example.frames[version] for example, version, _ in drawn]
            conditions["frame"] = torch.tensor(frames)
        return Batch(latents, context, weights, conditions)

    def _draw(self, sample: int) -> tuple[Example, int, str]:
        random = sample_random(self.seed, sample)
        example = self.examples[self.order.example(sample)]
        version = random.randrange(len(example.latents))
        text = "" if random.random() < self.caption_dropout else example.caption.draw(random)
        return example, version, text

    def _latents(self, sample: int, example: Example, version: int) -> torch.Tensor:
        latents = example.latents[version]
        if example.spread is None:
            return latents
        noise = sample_noise(mixed("latents", self.seed), sample, example.shape)
        return latents + example.spread[version] * noise.to(latents)


def _weights(example: Example, version: int) -> torch.Tensor:
    if example.weights is not None:
        return example.weights[version]
    return torch.ones(1, *example.shape[1:], device=example.latents[0].device)
