"""The health of a run: smoothed loss, validation loss on fixed noise and time steps, and signs of
divergence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..errors import DivergenceError

SMOOTHING = 0.98
"""Share of the past in the smoothed loss: about the last 50 steps count."""
RUN_AWAY = 4.0
"""The smoothed loss may be this many times its lowest, or the loss of predicting nothing at all."""
SETTLED = 100
"""Steps after which the smoothed loss has a lowest value worth a comparison."""
SURE = 8.0
"""Standard deviations by which the usual loss must have grown.

The highest and the lowest of the smoothed values of a healthy run are some seven apart.
"""
MOST_SKIPPED = 20
"""Steps in a row that may overflow in fp16 while the scaler looks for its scale."""


@dataclass(frozen=True)
class TrainingStep:
    """One finished step, for callbacks.

    Attributes:
        step: finished steps: the first is 1.
        steps: of the whole run.
        loss: of this step.
        smoothed: over about the last 50 steps.
        rate: learning rate.
        gradient_norm: of all gradients together, unscaled, before clipping.
        validation: loss on images kept from training, on fixed noise and time steps; ``None`` where
            this step has none.
        skipped: gradients overflowed in fp16, and nothing was changed.
        seconds: what this step took.
        steps_per_second: over the last steps.
        seconds_left: to the end of the run.
        saved: name of the file written after this step, if any.
    """

    step: int
    steps: int
    loss: float
    smoothed: float
    rate: float
    gradient_norm: float
    validation: float | None = None
    skipped: bool = False
    seconds: float = 0.0
    steps_per_second: float = 0.0
    seconds_left: float = 0.0
    saved: str | None = None


class Smoothed:
    """An exponential average that is right from its first value on."""

    def __init__(self) -> None:
        self.total = self.share = 0.0

    @property
    def mean(self) -> float:
        """Of what was taken in so far."""
        return self.total / self.share

    @property
    def noise(self) -> float:
        """Standard deviation of the average, as a share of that of single values."""
        # The newest value weighs most, so an average of n values is as good as one of fewer.
        return math.sqrt((1 - SMOOTHING) / (1 + SMOOTHING) * (2 - self.share) / self.share)

    def add(self, value: float) -> float:
        """Take in a value; returns the average."""
        self.total = SMOOTHING * self.total + (1 - SMOOTHING) * value
        self.share = SMOOTHING * self.share + (1 - SMOOTHING)
        return self.mean


def divergence(reason: str, step: int, precision: str) -> DivergenceError:
    """The error that ends a run whose loss has diverged; it says what to change.

    Args:
        step: that of the last good state, to which the network was reset.
    """
    advice = (
        "a lower learning rate (`rate`), a longer warm-up (`warm_up`) or more clipping (`clip`)"
    )
    if precision == "fp16":
        advice += ", or with bf16 (`precision`)"
    return DivergenceError(
        f"{reason}: the network was reset to step {step}; start again with {advice}"
    )


class Watch:
    """Smooths the loss and notices when a run goes wrong."""

    def __init__(self) -> None:
        self.loss, self.power = Smoothed(), Smoothed()
        self.usual, self.usual_power = Smoothed(), Smoothed()
        self.lowest_usual = math.inf
        # Differences from step to step tell noise from a loss that grows, which a variance can't.
        self.spread, self._last = Smoothed(), math.nan
        self.lowest, self.seen, self.skipped = math.inf, 0, 0

    def add(self, loss: float, power: float) -> float:
        """Take in a step's loss, and the loss of predicting nothing; returns the smoothed loss."""
        # The mean follows single large losses; the mean of logarithms hardly does.
        smoothed = self.loss.add(loss)
        self.power.add(power)

        usual = self.usual.add(_log(loss))
        if not math.isnan(self._last):
            self.spread.add((_log(loss) - self._last) ** 2 / 2)
        self._last = _log(loss)
        self.usual_power.add(_log(power))
        self.seen += 1

        # The first steps fall so fast that their lowest value says nothing.
        if self.seen >= SETTLED:
            self.lowest_usual = min(self.lowest_usual, usual)
            self.lowest = min(self.lowest, smoothed)
        return smoothed

    def complaint(self, smoothed: float) -> str | None:
        """Why the run should stop, or ``None``.

        A few large losses among usual ones, as single images give them, are no sign: the usual
        loss, the mean of the logarithms, must have grown as well, and by more than it varies by
        itself.
        """
        nothing = self.power.total / self.power.share
        sure = SURE * self.usual.noise * self._deviation

        over_nothing = self.usual.mean - self.usual_power.mean > max(math.log(RUN_AWAY / 2), sure)
        if self.seen >= 10 and over_nothing and smoothed > RUN_AWAY * nothing:
            return (
                f"the loss has grown to {smoothed:.3g}, far beyond {nothing:.3g} for predicting "
                "nothing at all"
            )

        has_grown = self.usual.mean - self.lowest_usual > max(math.log(RUN_AWAY), sure)
        if has_grown and smoothed > RUN_AWAY * self.lowest:
            return f"the loss has grown from {self.lowest:.3g} to {smoothed:.3g}"
        return None

    @property
    def _deviation(self) -> float:
        """Of the logarithm of single losses."""
        return math.sqrt(self.spread.mean) if self.spread.share else 0.0

    def is_healthy(self, loss: float, power: float) -> bool:
        """Whether the weights that made the last loss are worth going back to."""
        smoothed = self.loss.total / self.loss.share
        return loss <= RUN_AWAY * power and (self.seen < SETTLED or smoothed < 1.5 * self.lowest)

    def state(self) -> dict[str, float]:
        """For checkpoints: plain numbers."""
        return {
            "total": self.loss.total,
            "share": self.loss.share,
            "power_total": self.power.total,
            "power_share": self.power.share,
            "lowest": self.lowest,
            "seen": self.seen,
            "usual_total": self.usual.total,
            "usual_share": self.usual.share,
            "usual_power_total": self.usual_power.total,
            "usual_power_share": self.usual_power.share,
            "lowest_usual": self.lowest_usual,
            "spread_total": self.spread.total,
            "spread_share": self.spread.share,
            "last": self._last,
        }

    def restore(self, state: dict[str, float]) -> None:
        """Take up what :meth:`state` gave."""
        self.loss.total, self.loss.share = state["total"], state["share"]
        self.power.total, self.power.share = state["power_total"], state["power_share"]
        self.lowest, self.seen = state["lowest"], int(state["seen"])
        # A state of an older version goes on with what it has.
        if "usual_total" in state:  # not in those of older versions
            self.usual.total, self.usual.share = state["usual_total"], state["usual_share"]
            self.usual_power.total = state["usual_power_total"]
            self.usual_power.share = state["usual_power_share"]
            self.lowest_usual = state["lowest_usual"]
        if "last" in state:
            self.spread.total, self.spread.share = state["spread_total"], state["spread_share"]
            self._last = state["last"]


def _log(value: float) -> float:
    return math.log(max(value, 1e-30))


class Pace:
    """Steps per second over the last steps, and the time left."""

    def __init__(self) -> None:
        self._recent: list[float] = []

    def add(self, seconds: float) -> float:
        """Take in what a step took; returns steps per second."""
        self._recent = [*self._recent[-19:], seconds]
        return len(self._recent) / max(sum(self._recent), 1e-9)

    def timed(self, done: TrainingStep, seconds: float) -> TrainingStep:
        """The step with what it took, and with the time left at this pace."""
        speed = self.add(seconds)
        left = (done.steps - done.step) / speed
        return replace(done, seconds=seconds, steps_per_second=speed, seconds_left=left)
