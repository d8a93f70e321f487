"""How noise is added to latents and what the UNet is asked to predict."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class NoiseSchedule:
    """A variance-preserving diffusion.

    Attributes:
        alphas_cumprod: remaining signal power per time step, ``(steps,)``, fp32.
        prediction: ``"epsilon"`` or ``"v_prediction"``.
    """

    alphas_cumprod: torch.Tensor
    prediction: str = "epsilon"

    @property
    def length(self) -> int:
        """Number of time steps."""
        return len(self.alphas_cumprod)

    def noisy_and_target(
        self, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noisy latents and what should be predicted from them: the noise, or v = alpha noise - sigma latents.

        Args:
            latents, noise: ``(batch, channels, height, width)``.
            times: ``(batch,)`` integers below :attr:`length`.
        """
        power = self.alphas_cumprod.to(latents)[times].view(-1, 1, 1, 1)
        alpha, sigma = power.sqrt(), (1 - power).sqrt()
        noisy = alpha * latents + sigma * noise
        return noisy, alpha * noise - sigma * latents if self.prediction == "v_prediction" else noise
