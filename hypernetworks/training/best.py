"""The best step of a run: the lowest validation loss, smoothed so that one lucky measurement
doesn't decide.
"""

from __future__ import annotations

import math
from typing import Any

PATIENCE = 6
"""Measurements without a new best after which the network is said to be overfitting."""


class Best:
    """Follows the validation loss.

    Attributes:
        step: the best one so far; 0 before the first measurement.
        loss: its validation loss, the mean of two measurements.
        since: measurements since then.
        begun: the last step whose measurement can't be compared with those that count.
    """

    def __init__(self, begun: int = 0) -> None:
        self.step, self.loss, self.since, self.begun = 0, math.inf, 0, begun
        self._previous = math.nan

    def add(self, step: int, validation: float) -> bool:
        """Take in a measurement; returns whether this step is the best so far."""
        smoothed = validation if math.isnan(self._previous) else (self._previous + validation) / 2
        # One measurement may be lucky, two in a row hardly are.
        self._previous, self.since = validation, self.since + 1
        if not smoothed < self.loss:
            return False
        self.step, self.loss, self.since = step, smoothed, 0
        return True

    @property
    def is_past(self) -> bool:
        """Whether the loss has not fallen for so long that it won't any more."""
        return self.since >= PATIENCE

    @property
    def has_just_passed(self) -> bool:
        """As :attr:`is_past`, once."""
        return self.since == PATIENCE

    def warning(self, validation: float, until: str) -> str:
        """What to say when it :attr:`has_just_passed`.

        Args:
            until: the run's setting of that name.
        """
        text = (
            f"the validation loss has not fallen since step {self.step} ({self.loss:.4f}, now "
            f"{validation:.4f}): from there on, the network overfits"
        )
        return (
            text
            if until == "best"
            else f"{text}; the best one is kept, and `until` best would stop here"
        )

    def state(self) -> dict[str, float]:
        """For checkpoints: plain numbers."""
        return {
            "step": self.step,
            "loss": self.loss,
            "since": self.since,
            "previous": self._previous,
            "begun": self.begun,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        self.step, self.since = int(state["step"]), int(state["since"])
        self.loss, self._previous = float(state["loss"]), float(state["previous"])
        self.begun = int(state.get("begun", 0))  # not in those of older versions
