"""The forward pass of a run: samples by number -> noise and time steps, the UNet's prediction, and
its loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from ..devices import autocast, forked_rng
from ..engine.structure import Structure
from .examples import Batch, Examples
from .objective import NoiseSchedule, losses, with_offset
from .seeding import mixed, sample_noise, sample_random
from .settings import TrainingSettings


class ForwardPass:
    """The loss of one batch of samples; every draw follows from the settings' seed and the sample's
    number.

    Args:
        learner: what predicts: ``(noisy latents, time steps, batch)``.
        structure: of the network that is trained; tells whether a pass draws dropout.
        device: where the learner computes.
    """

    def __init__(
        self,
        learner: nn.Module,
        structure: Structure,
        examples: Examples,
        schedule: NoiseSchedule,
        settings: TrainingSettings,
        device: torch.device,
    ) -> None:
        self.learner, self.examples, self.schedule = learner, examples, schedule
        self.settings, self.device = settings, device
        self._is_drawn = any(structure.dropout) or structure.activation == "rrelu"

    def losses(self, samples: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean loss of the samples, and of predicting nothing; scalars, the first with its
        graph.
        """
        settings = self.settings
        batch = self.examples.batch(samples).to(self.device)
        noise, times = self.draw(samples, batch)
        noisy, target = self.schedule.noisy_and_target(batch.latents, noise, times)
        with self.autocast():
            prediction = self.learner(noisy, times, batch)
        each = losses(prediction, target, batch.weights, settings.loss)
        # What predicting nothing would cost tells later whether the run has diverged.
        nothing = losses(torch.zeros_like(target), target, batch.weights, settings.loss)
        for weights in self._time_weights(times):
            each, nothing = each * weights, nothing * weights

        return each.mean(), nothing.mean()

    def _time_weights(self, times: torch.Tensor) -> Iterator[torch.Tensor]:
        if self.settings.min_snr:
            yield self.schedule.min_snr_weights(times, self.settings.min_snr)
        if self.settings.debiased:
            yield self.schedule.debiased_weights(times)

    def draw(self, samples: Sequence[int], batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise of the latents' shape, and time steps ``(batch,)``."""
        # On the CPU and by sample number: the same noise on every device and in every batch.
        seed, shape = self.settings.seed, tuple(batch.latents.shape[1:])
        noise = torch.stack([sample_noise(seed, n, shape) for n in samples]).to(batch.latents)
        if self.settings.noise_offset:
            offset = torch.stack(
                [sample_noise(mixed("offset", seed), n, shape[:1]) for n in samples]
            ).to(noise)
            noise = with_offset(noise, offset, self.settings.noise_offset)
        levels, time_seed = self.settings.noise_levels, mixed("time", seed)
        times = [self.schedule.draw_time(sample_random(time_seed, n), levels) for n in samples]
        return noise, torch.tensor(times, device=self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """What the learner is called in."""
        if self.settings.precision in ("auto", "fp32"):
            return nullcontext()
        kind = torch.bfloat16 if self.settings.precision == "bf16" else torch.float16
        return autocast(self.device, kind)

    @contextmanager
    def dropout(self, sample: int) -> Iterator[None]:
        """Dropout draws from torch's own generators: seed them for this sample, and give them back
        as they were.
        """
        if not self._is_drawn:
            yield
            return
        with forked_rng(self.device):
            torch.manual_seed(mixed("dropout", self.settings.seed, sample))
            yield
