"""The validation loss, on images that training never sees, with fixed noise and time steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from random import Random

import torch

from ..engine.network import Hypernetwork
from .contexts import Contexts
from .examples import Batch, Example
from .objective import NoiseSchedule, losses
from .processes import Predict
from .seeding import mixed, sample_noise

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Time steps at which each image is measured, as fractions of the schedule."""
FURTHER = (0.2, 0.4, 0.6, 0.8, 0.95)
"""Those of every second time that it is measured, where there are few images."""
LEAST = 40
"""Measurements of all images together: so many that the lowest loss is hardly a lucky one."""
MOST = 16
"""Images that are measured."""


class ValidationLoss:
    """A loss that is comparable over the whole run, because nothing in it is random.

    Args:
        examples: never trained on; the first :data:`MOST` count.
        contexts: encodes their captions.
        seed: of the fixed noise.
        model: names what encodes and predicts, for :attr:`measured`.
    """

    def __init__(
        self, examples: Sequence[Example], contexts: Contexts, seed: int, model: object = None
    ) -> None:
        self.examples, self.contexts, self.seed = tuple(examples)[:MOST], contexts, seed
        self._model = model
        self._texts = [
            e.caption.draw(Random(mixed("held out", seed, i))) for i, e in enumerate(self.examples)
        ]
        self.contexts.prepare(self._texts)

    @property
    def measured(self) -> str:
        """Stands for all that the loss depends on, the network aside: losses can be compared where
        it is the same.
        """
        # Of contents rather than of latents, which differ a little from device to device.
        rows = [
            (example.key or example.name, example.shape, text, example.frames, _mask_of(example))
            for example, text in zip(self.examples, self._texts, strict=True)
        ]
        parts = (rows, self.seed, self._model, TIMES, FURTHER, self._turns)
        return sha256(repr(parts).encode()).hexdigest()

    @torch.no_grad()
    def loss(self, predict: Predict, schedule: NoiseSchedule, device: torch.device | str) -> float:
        """Mean loss over all images and time steps; of the masks, no other weights, so that runs
        can be compared.
        """
        # The same noise and times at every measurement, so only the network changes the loss.
        total = 0.0
        for index, example in enumerate(self.examples):
            batch = self._batch(index, example).to(device)
            for turn in range(self._turns):
                total += self._mean(index, turn, example, batch, predict, schedule)
        return total / len(self.examples) / self._turns

    def _mean(
        self,
        index: int,
        turn: int,
        example: Example,
        batch: Batch,
        predict: Predict,
        schedule: NoiseSchedule,
    ) -> float:
        """Of one image, at :data:`TIMES` or :data:`FURTHER`, with noise of its own."""
        shares = FURTHER if turn % 2 else TIMES
        times = torch.tensor(
            [int(share * schedule.length) for share in shares], device=batch.latents.device
        )
        seed = mixed("held out", self.seed) if not turn else mixed("held out", self.seed, turn)
        numbers = (index * len(TIMES) + k for k in range(len(TIMES)))
        noise = torch.stack([sample_noise(seed, n, example.shape) for n in numbers])
        noisy, target = schedule.noisy_and_target(batch.latents, noise.to(batch.latents), times)
        each = losses(predict(noisy, times, batch), target, batch.weights)
        return float(each.cpu().double().mean())  # not every device has float64

    @property
    def _turns(self) -> int:
        return max(1, math.ceil(LEAST / len(TIMES) / len(self.examples)))

    def _batch(self, index: int, example: Example) -> Batch:
        conditions = self.contexts.stack([self._texts[index]] * len(TIMES))
        context = conditions.pop("context")
        if conditions and example.frames:
            frame = torch.tensor(example.frames[0])
            conditions["frame"] = frame.expand(len(TIMES), 4).contiguous()
        latents = example.latents[0].expand(len(TIMES), *example.shape).contiguous()
        weights = None
        if example.weights is not None:  # what is masked is no part of what should be learned
            mask = example.weights[0] / example.weights[0].mean()
            weights = mask.expand(len(TIMES), *mask.shape)
        return Batch(latents, context, weights, conditions)


def _mask_of(example: Example) -> str | None:
    """Stands for what of an image counts; ``None`` for all of it."""
    if example.weights is None:
        return None
    weights = example.weights[0].cpu()
    parts = (weights / weights.mean() * 1000).round().int()
    # A weight of the whole image changes nothing.
    return None if bool((parts == 1000).all()) else sha256(parts.numpy().tobytes()).hexdigest()


@contextmanager
def at_rest(network: Hypernetwork) -> Iterator[None]:
    """Dropout is off inside, while the parameters stay live, so that patches on a UNet need not be
    made anew.
    """
    mlps = [mlp for pair in network.pairs.values() for mlp in pair]
    before = [mlp.training for mlp in mlps]
    for mlp in mlps:
        mlp.eval()
    try:
        yield
    finally:
        for mlp, mode in zip(mlps, before, strict=True):
            mlp.train(mode)
