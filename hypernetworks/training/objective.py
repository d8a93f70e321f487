"""How noise is added to latents, what the UNet is asked to predict, and how its error is
weighed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import TrainingSettingsError

PREDICTIONS = ("epsilon", "v_prediction")


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
        capped = snr.clamp_max(gamma)
        if self.prediction == "v_prediction":
            weights = capped / (snr + 1)
        else:
            weights = torch.where(snr > 0, capped / snr.clamp_min(1e-12), 1.0)

        return weights.float().to(times.device)[times]


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
    prediction: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error of each example ``(batch,)``, in fp32.

    Args:
        weights: ``(batch, 1, height, width)`` with mean 1 per example; ``None`` is 1 everywhere.
    """
    error = (prediction.float() - target.float()).square()
    return (error if weights is None else error * weights).mean((1, 2, 3))
