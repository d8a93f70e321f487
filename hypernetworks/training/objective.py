"""How noise is added to latents, what the UNet is asked to predict, and how its error is
weighed.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from random import Random

import torch

from ..errors import TrainingSettingsError

PREDICTIONS = ("epsilon", "v_prediction")
LOSSES = ("mse", "huber")
NOISE_LEVELS = ("uniform", "style")
"""How the time steps of samples are drawn: all alike, or mostly noisy ones, which decide an image's
style.
"""
STYLE_LEVELS = (-6.0, 2.0)
"""Mean and standard deviation of the log-SNR with "style" (Choi et al. 2024, arXiv 2411.14793)."""
HUBER = 0.1
"""Errors far beyond this grow linearly in the Huber loss, as kohya's ``huber_c`` has it."""
LEAST_SNR = 1e-3
"""Debiased weights grow no further below this SNR."""


@dataclass(frozen=True)
class NoiseSchedule:
    """A variance-preserving diffusion.

    Attributes:
        alphas_cumprod: remaining signal power per time step, ``(steps,)``, fp32.
        prediction: ``"epsilon"`` or ``"v_prediction"``.
    """

    alphas_cumprod: torch.Tensor
    prediction: str = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise TrainingSettingsError(
                f'a model that predicts "{self.prediction}" can\'t be trained on: use '
                f"{' or '.join(PREDICTIONS)}"
            )

    @property
    def length(self) -> int:
        """Number of time steps."""
        return len(self.alphas_cumprod)

    def noisy_and_target(
        self, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noisy latents and what should be predicted from them: the noise, or v = alpha noise -
        sigma latents.

        Args:
            latents, noise: ``(batch, channels, height, width)``.
            times: ``(batch,)`` integers below :attr:`length`.
        """
        # Of the latents' device and type, so that noisy latents are neither copied nor widened.
        power = self.alphas_cumprod.to(latents)[times].view(-1, 1, 1, 1)
        alpha, sigma = power.sqrt(), (1 - power).sqrt()
        noisy = alpha * latents + sigma * noise

        return (
            noisy,
            alpha * noise - sigma * latents if self.prediction == "v_prediction" else noise,
        )

    def min_snr_weights(self, times: torch.Tensor, gamma: float) -> torch.Tensor:
        """Loss weights ``(batch,)`` of Min-SNR-gamma (Hang et al. 2023): easy, nearly clean time
        steps count less.

        ``min(SNR, gamma) / SNR`` for noise prediction, ``min(SNR, gamma) / (SNR + 1)`` for
        v-prediction; at zero terminal SNR they are 1 and 0.
        """
        power = self.alphas_cumprod.cpu().double()  # not every device has float64
        snr = power / (1 - power).clamp_min(1e-12)
        # In double precision: nearly clean steps have an SNR far beyond what is left of 1 - power.
        capped = snr.clamp_max(gamma)
        if self.prediction == "v_prediction":
            weights = capped / (snr + 1)
        else:
            weights = torch.where(snr > 0, capped / snr.clamp_min(1e-12), 1.0)

        return weights.float().to(times.device)[times]

    def debiased_weights(self, times: torch.Tensor) -> torch.Tensor:
        """Loss weights ``(batch,)`` of debiased estimation (Yu et al. 2023): noisy time steps count
        more.

        ``1 / sqrt(SNR)`` for noise prediction, ``1 / (SNR + 1)`` for v-prediction, as in kohya's
        trainer.
        """
        power = self.alphas_cumprod.cpu().double()  # not every device has float64
        snr = (power / (1 - power).clamp_min(1e-12)).clamp_min(LEAST_SNR)
        weights = 1 / (snr + 1) if self.prediction == "v_prediction" else snr.rsqrt()
        return weights.float().to(times.device)[times]

    def draw_time(self, random: Random, levels: str) -> int:
        """One time step; see :data:`NOISE_LEVELS`."""
        if levels == "uniform":
            return random.randrange(self.length)
        wanted = random.gauss(*STYLE_LEVELS)
        # The log-SNR falls with time, and bisecting needs a rising list.
        return min(bisect_left(self._falling, -wanted), self.length - 1)

    @cached_property
    def _falling(self) -> list[float]:
        """The log-SNR of each time step, negated, so that it rises."""
        power = self.alphas_cumprod.cpu().double().clamp(1e-12, 1 - 1e-12)
        falling: list[float] = (-torch.log(power / (1 - power))).tolist()
        return falling


def with_offset(noise: torch.Tensor, offset: torch.Tensor, strength: float) -> torch.Tensor:
    """Noise whose mean per channel is moved, so that very dark and very light images can be
    learned.

    Args:
        noise: ``(batch, channels, height, width)``.
        offset: standard normal ``(batch, channels)``.
        strength: 0 for none; 0.05 to 0.1 is usual.
    """
    return noise + strength * offset[:, :, None, None]


def losses(
    prediction: torch.Tensor,
    target: torch.Tensor,
    weights: torch.Tensor | None = None,
    kind: str = "mse",
) -> torch.Tensor:
    """Mean error of each example ``(batch,)``, in fp32: squared, or Huber's.

    Args:
        weights: ``(batch, 1, height, width)`` with mean 1 per example; ``None`` is 1 everywhere.
        kind: one of :data:`LOSSES`.
    """
    error = prediction.float() - target.float()
    squared = error.square()
    # Pseudo-Huber is smooth everywhere, and the square of small errors.
    error = squared if kind == "mse" else 2 * HUBER * ((squared + HUBER**2).sqrt() - HUBER)
    return (error if weights is None else error * weights).mean((1, 2, 3))
