"""Loss scaling for fp16: gradients that would vanish are scaled up, and steps that overflow are
skipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

FIRST_SCALE = 2.0**16
GROWTH, BACKOFF, INTERVAL = 2.0, 0.5, 2000
"""As torch's own scaler has them: doubled after so many steps without an overflow, halved after
one.
"""


class Scaler:
    """What torch's ``GradScaler`` does, in fp32 and plain operations of torch, so that it works on
    every device.

    torch's needs float64, which Apple's and many of Intel's cards lack, and a kernel that DirectML
    lacks. A scale is a power of two, so that nothing is lost by fp32. The state is interchangeable
    with torch's.

    Args:
        enabled: ``False`` does nothing at all.
    """

    def __init__(self, *, enabled: bool, init_scale: float = FIRST_SCALE) -> None:
        self._enabled, self._scale, self._good_steps = enabled, init_scale, 0

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def get_scale(self) -> float:
        """By how much losses are scaled."""
        return self._scale if self._enabled else 1.0

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to go backward from."""
        return loss * self._scale if self._enabled else loss

    @torch.no_grad()
    def unscale(self, gradients: Sequence[torch.Tensor]) -> None:
        """Scale gradients back, in place."""
        if self._enabled and gradients:
            torch._foreach_mul_(list(gradients), 1 / self._scale)

    def update(self, norm: float) -> bool:
        """Record the result of a step; returns whether it must be skipped.

        Args:
            norm: of the unscaled gradients.
        """
        if not self._enabled:
            return False
        if not math.isfinite(norm):
            self._scale, self._good_steps = self._scale * BACKOFF, 0
            return True

        self._good_steps += 1
        if self._good_steps == INTERVAL:
            self._scale, self._good_steps = self._scale * GROWTH, 0
        return False

    def state_dict(self) -> dict[str, Any]:
        """The state, under torch's names; empty where it does nothing."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale,
            "growth_factor": GROWTH,
            "backoff_factor": BACKOFF,
            "growth_interval": INTERVAL,
            "_growth_tracker": self._good_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state, its own or torch's."""
        self._scale, self._good_steps = float(state["scale"]), int(state["_growth_tracker"])
