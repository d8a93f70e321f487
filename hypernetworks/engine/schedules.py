"""Numbers as tags write them, and how a multiplier changes over the steps.

Plain numbers, no torch.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

from ..errors import MultiplierError

_DASHES = dict.fromkeys(map(ord, "−–‐‑﹣－"), "-")
"""What word processors and web pages make of a minus sign."""


def is_invisible(sign: str) -> bool:
    """Whether a character has no shape of its own: what marks the direction of text, say, or where
    a word may be broken. It comes along when text is copied from web pages.
    """
    return unicodedata.category(sign) == "Cf"


def parse_number(text: str, what: str = "multiplier") -> float:
    """Parse a finite number as Python's ``float`` does; a dash is a minus sign, and invisible
    characters don't count.

    Args:
        text: the number.
        what: what it is, for the error.

    Raises:
        MultiplierError: it isn't a number, or isn't finite.
    """
    if not text.isascii():
        text = "".join(sign for sign in text.translate(_DASHES) if not is_invisible(sign))
    try:
        number = float(text)
        if "_" in text:  # Python reads 1_0 as ten, which is a typing error here
            raise ValueError("an underscore")
    except ValueError:
        hint = (
            f': write "{text.replace(",", ".")}"'
            if re.fullmatch(r"\s*[-+]?\d*,\d+\s*", text)
            else ""
        )
        raise MultiplierError(
            f'the {what} "{text}" is not a number{hint or ": write one such as 0.7"}'
        ) from None
    if not math.isfinite(number):
        raise MultiplierError(f'the {what} "{text}" is not a finite number: write one such as 0.7')

    return number


def finite(number: float) -> float:
    """The number as a float.

    Raises:
        MultiplierError: infinite, no number, or beyond the range of a float.
    """
    try:
        value = float(number)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise MultiplierError(
            "the multiplier must be a finite number within the range of a float: write one such "
            "as 0.7"
        )
    return value


def format_number(number: float) -> str:
    """The shortest text that :func:`parse_number` reads as the same number: ``0.7``, ``1``.

    Raises:
        MultiplierError: infinite, no number, or beyond the range of a float.
    """
    number = finite(number)
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(float(number))


@dataclass(frozen=True)
class Schedule:
    """A piecewise linear multiplier over the steps of one pass.

    Attributes:
        points: ``(value, position)`` pairs by ascending position; a single pair is a constant.
        in_steps: positions are steps counted from 0; otherwise fractions of the pass in [0, 1].
    """

    points: tuple[tuple[float, float], ...]
    in_steps: bool = False

    @classmethod
    def constant(cls, value: float) -> Schedule:
        """The same value at every step."""
        return cls(((float(value), 0.0),))

    @classmethod
    def parse(cls, text: str, what: str = "multiplier") -> Schedule:
        """Parse ``"0.7"`` or ``"0@0,1@0.5"``.

        Raises:
            MultiplierError: it is neither a finite number nor a list of value@position pairs.
        """
        if "@" not in text:
            return cls.constant(parse_number(text, what))

        points = []
        for pair in re.split("[,;]", text):
            value, at, position = pair.partition("@")
            if not at:
                raise MultiplierError(
                    f'"{pair.strip()}" in the schedule "{text}" has no position: write '
                    "value@position such as 1@0.5"
                )
            points.append((parse_number(value, "value"), parse_number(position, "position")))
            if points[-1][1] < 0:
                raise MultiplierError(
                    f'the position "{position}" in "{text}" is negative, positions start at 0'
                )

        # Stable: of two points at one position, the first ends a line, the second begins one.
        points.sort(key=lambda point: point[1])
        return cls(tuple(points), in_steps=points[-1][1] > 1)

    def acts_between(self, start: float | None, stop: float | None) -> bool:
        """Whether it is not 0 somewhere between two positions, given in its own unit."""
        low = 0.0 if start is None else start
        high = math.inf if stop is None else stop
        # It is linear between points, so points and ends are enough.
        inside = [value for value, position in self.points if low <= position <= high]
        return any([*inside, self._value_at(low), self._value_at(high)])

    @property
    def is_constant(self) -> bool:
        """Whether every step has the same value."""
        return len({value for value, _ in self.points}) == 1

    def at(self, step: int, total: int) -> float:
        """The value at ``step`` of ``total``, counted from 0.

        It is linear between points, and constant before the first and after the last.
        """
        return self._value_at(position_of(step, total, self.in_steps))

    def _value_at(self, position: float) -> float:
        before = None
        for value, here in self.points:
            if here > position:
                if before is None:
                    return value
                share = (position - before[1]) / (here - before[1])
                return before[0] + share * (value - before[0])
            before = (value, here)
        return self.points[-1][0]

    def __str__(self) -> str:
        if len(self.points) == 1:
            return format_number(self.points[0][0])
        return ",".join(f"{format_number(v)}@{format_number(p)}" for v, p in self.points)


def position_of(step: int, total: int, in_steps: bool) -> float:
    """The position of a step: its number, or a fraction of the pass in [0, 1]."""
    if in_steps:
        return float(step)
    return step / (total - 1) if total > 1 else 0.0
