"""Learning rates: AUTOMATIC1111's ``rate:step, rate:step`` syntax, warm-up, and a fall to a floor,
with restarts.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..errors import TrainingSettingsError

SHAPES = ("auto", "constant", "linear", "cosine")
"""How the rate goes after the warm-up: as written, or down to :attr:`RateSchedule.floor` in a line
or half a cosine.

``"auto"`` is a cosine for one rate, and as written for a rate in steps; with a schedule-free
optimiser, always as written.
"""
_EXAMPLE = (
    'write a number, or steps such as "1e-4:500, 1e-5:2000" (1e-4 up to step 500, then 1e-5 up '
    "to step 2000)"
)


@dataclass(frozen=True)
class RateSchedule:
    """The learning rate at every step of a run.

    Attributes:
        pieces: ``(rate, last step)``, steps rising; the last piece holds to the end of the run.
        steps: how many steps the run has.
        shape: one of :data:`SHAPES` but ``"auto"``, as a factor on the pieces.
        warm_up: steps over which the factor rises in a line from nearly 0 to 1.
        restarts: how often the fall begins anew; 0 is one fall over the whole run.
        floor: the factor at the end of each fall.
    """

    pieces: tuple[tuple[float, int], ...]
    steps: int
    shape: str = "constant"
    warm_up: int = 0
    restarts: int = 0
    floor: float = 0.05

    @classmethod
    def parse(
        cls,
        text: str,
        steps: int,
        *,
        shape: str = "constant",
        warm_up: int = 0,
        restarts: int = 0,
        floor: float = 0.05,
    ) -> RateSchedule:
        """Read ``"1e-4"`` or ``"1e-4:500, 1e-5"``; a step of -1, or none, means the end, as in
        AUTOMATIC1111.

        Steps count finished steps: ``1e-4:500`` holds for the first 500. Where the pieces end
        before the run does, the last one goes on (AUTOMATIC1111 stops the run there).

        Raises:
            TrainingSettingsError: anything else.
        """
        if shape not in SHAPES:
            raise TrainingSettingsError(
                f'the schedule "{shape}" is unknown, use one of {", ".join(SHAPES)}',
                setting="shape",
            )

        pieces: list[tuple[float, int]] = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            rate, last = _piece(part)
            before = pieces[-1][1] if pieces else 0
            # Without an end, the piece holds to the end of the run.
            last = max(steps, before + 1) if last is None else last
            if last <= before:
                raise TrainingSettingsError(
                    f'the learning rate "{text}": the steps must increase; {_EXAMPLE}',
                    setting="rate",
                )
            pieces.append((rate, last))

        if not pieces:
            raise TrainingSettingsError(f"the learning rate is empty: {_EXAMPLE}", setting="rate")
        if shape == "auto":
            shape = "cosine" if len(pieces) == 1 else "constant"
        return cls(tuple(pieces), steps, shape, warm_up, restarts, floor)

    def at(self, step: int) -> float:
        """The rate of step ``step``, counted from 0."""
        rate = next((rate for rate, last in self.pieces if step < last), self.pieces[-1][0])
        return rate * self._factor(step)

    def _factor(self, step: int) -> float:
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        if self.shape == "constant":
            return 1.0
        # Restarts divide what is left after the warm-up into equal falls.
        length = max(1, self.steps - self.warm_up) / (self.restarts + 1)
        share = min(1.0, ((step - self.warm_up) % length) / length)
        fall = 1 - share if self.shape == "linear" else 0.5 * (1 + math.cos(math.pi * share))
        return self.floor + (1 - self.floor) * fall


def _piece(part: str) -> tuple[float, int | None]:
    """A rate and its last step, ``None`` for the end of the run."""
    rate, colon, last = (field.strip() for field in part.partition(":"))
    try:
        number = float(rate)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf or (colon and not re.fullmatch(r"-1|[1-9][0-9]{0,8}", last)):
        raise TrainingSettingsError(
            f'the learning rate "{part}" can\'t be understood: {_EXAMPLE}', setting="rate"
        )
    return number, None if not colon or last == "-1" else int(last)
