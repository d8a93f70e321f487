"""What the numbers of a generation may be: the one table for the fields, the job, Compare's axes,
and what is restored from an image or after a reload.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        label: the field's.
    """

    label: str
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{_written(self.low)} to {_written(self.high)}"

    def refusal(self, value: object) -> str:
        """What to tell about a value that is not in it."""
        shown = _written(value) if isinstance(value, (int, float)) else value
        return f"{self.label}: {shown} is not possible: use {self}"


def _written(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


LARGEST_SEED = 2**53 - 1
"""Browsers round larger numbers, so that another image would be generated."""

RANGES = {
    "steps": Range("Steps", 1, 1000),
    "cfg": Range("CFG scale", 0, 100),
    "seed": Range("Seed", 0, LARGEST_SEED),
    "batch": Range("Images", 1, 16),
    "width": Range("Width", 8, 4096),
    "height": Range("Height", 8, 4096),
    "hires_scale": Range("Scale", 1, 4),
    "hires_strength": Range("Hires strength", 0.01, 1),
    "strength": Range("Strength", 0.01, 1),
}
"""By the names of the fields. A seed below 0 is drawn."""
