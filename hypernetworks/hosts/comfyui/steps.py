"""At which step of a sampling pass ComfyUI is, from the sigma that the model is asked for."""

from __future__ import annotations

from collections.abc import Sequence

EXTRA_CALLS = {"sample_heun": 1, "sample_heunpp2": 2, "sample_exp_heun_2_x0": 1}
"""Samplers that evaluate the model at the sigmas of later steps, and how often in one step."""
_TOLERANCE = 1e-4


class Steps:
    """Follows one sampling pass.

    Args:
        sigmas: of the pass, one more than it has steps.
        sampler: name of the sampler's function, such as ``"sample_euler"``; empty where unknown.
    """

    def __init__(self, sigmas: Sequence[float], sampler: str = "") -> None:
        self._sigmas = [float(sigma) for sigma in sigmas]
        self.total = max(1, len(self._sigmas) - 1)
        self._calls = self._by_call(EXTRA_CALLS.get(sampler, 0))
        self._called = 0

    def _by_call(self, extra: int) -> list[int]:
        """The step of each evaluation, for samplers whose sigmas don't tell; else an empty list.

        Towards the end, steps have fewer extra calls: Heun's method asks for no sigma of 0, and
        its longer relative not for the last sigma, whatever that is.
        """
        if not extra:
            return []
        rest = self._sigmas[1:]
        ahead = [s for s in rest if s != 0] if extra == 1 else rest[:-1]
        later = [max(0, len(ahead) - step) for step in range(self.total)]
        return [step for step in range(self.total) for _ in range(1 + min(extra, later[step]))]

    def of(self, sigma: float) -> int:
        """The step, from 0, of the evaluation that begins now.

        A sigma between those of two steps belongs to the earlier one: second-order samplers look
        ahead within a step.
        """
        number, self._called = self._called, self._called + 1
        if self._calls:
            return self._calls[min(number, len(self._calls) - 1)]

        starts = self._sigmas[: self.total]
        falling = len(self._sigmas) < 2 or self._sigmas[0] >= self._sigmas[-1]
        if falling:
            reached = [i for i, s in enumerate(starts) if s * (1 + _TOLERANCE) >= sigma]
        else:  # from the image to noise
            reached = [i for i, s in enumerate(starts) if s * (1 - _TOLERANCE) <= sigma]
        return max(reached, default=0)
