"""Finds AUTOMATIC1111's prompt editing and alternation around a tag, where it can't work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..engine.multiplier import format_number

LONGEST = 1 << 16
"""Characters of the longest prompt that is searched: a megabyte of brackets takes seconds."""
_NUMBER = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*")
"""A1111 accepts any signed number, also with an exponent. Below 0, the second half is used from the
start.
"""


@dataclass(frozen=True)
class Editing:
    """A ``[before:after:when]`` or ``[one|two]`` that encloses a position.

    Attributes:
        window: the tag argument with the same effect, such as ``("start", "0.5")``; ``None`` for
            alternation, and for a half that is never active.
        never: whether the position is in a half that is never active.
    """

    window: tuple[str, str] | None
    never: bool = False


@dataclass
class Bracket:
    """A closed pair of square brackets, with the colons and bars on its own level."""

    opening: int
    closing: int = -1
    colons: list[int] = field(default_factory=list)
    bars: list[int] = field(default_factory=list)


def find_brackets(prompt: str) -> list[Bracket]:
    """All closed pairs of square brackets, inner ones first.

    A backslash escapes the next character.

    Args:
        prompt: with all characters of tags replaced by null characters, so that their colons don't
            count.
    """
    found: list[Bracket] = []
    open_ones: list[Bracket | None] = []  # None is a round bracket, whose colons are weights
    escaped = False

    for index, character in enumerate(prompt):
        top = open_ones[-1] if open_ones else None
        if escaped or character == "\\":
            escaped = not escaped
        elif character in "[(":
            open_ones.append(Bracket(index) if character == "[" else None)
        elif character == ")" and open_ones and top is None:
            open_ones.pop()
        elif character == "]":
            while open_ones and open_ones[-1] is None:
                open_ones.pop()
            if open_ones and (top := open_ones.pop()) is not None:
                top.closing = index
                found.append(top)
        elif character in ":|" and top is not None:
            (top.colons if character == ":" else top.bars).append(index)

    return found


def editings(prompt: str, positions: Sequence[int]) -> list[Editing | None]:
    """The innermost prompt editing or alternation around each position, or ``None``.

    It takes linear time, because brackets and positions are visited once, in order.

    Args:
        prompt: with all characters of tags replaced by null characters, so that their colons don't
            count.
        positions: ascending.
    """
    waiting = sorted(find_brackets(prompt), key=lambda b: b.opening, reverse=True)
    around: list[tuple[int, _Halves | None]] = []  # closing bracket, and what is innermost there
    found: list[Editing | None] = []

    for position in positions:
        while waiting and waiting[-1].opening < position:
            bracket = waiting.pop()
            _leave(around, bracket.opening)
            outer = around[-1][1] if around else None
            around.append((bracket.closing, _halves(prompt, bracket) or outer))
        _leave(around, position)
        halves = around[-1][1] if around else None
        found.append(None if halves is None else halves.at(position))

    return found


def _leave(around: list[tuple[int, _Halves | None]], position: int) -> None:
    while around and around[-1][0] < position:
        around.pop()


@dataclass(frozen=True)
class _Halves:
    """An editing with the window of its first half and of its second half."""

    border: int
    before: Editing
    behind: Editing

    def at(self, position: int) -> Editing:
        return self.before if position < self.border else self.behind


def _halves(prompt: str, bracket: Bracket) -> _Halves | None:
    """The editing or alternation in a bracket, or ``None``."""
    if not bracket.colons:
        alternation = Editing(None)
        return _Halves(0, alternation, alternation) if bracket.bars else None

    # fullmatch would try every way to divide a long number into two.
    number = _NUMBER.match(prompt, bracket.colons[-1] + 1)
    if number is None or number.end() != bracket.closing:
        return None
    border = bracket.colons[-2] if len(bracket.colons) > 1 else 0
    return _Halves(border, _half(number[1], True), _half(number[1], False))


def _half(when: str, first_half: bool) -> Editing:
    """One half of ``[a:b:when]``."""
    # With b from the start, a is never used.
    if first_half and _when(when) <= 0:
        return Editing(None, never=True)
    return Editing(_window(when, first_half))


def _window(when: str, first_half: bool) -> tuple[str, str]:
    """The argument with the effect of one half of ``[a:b:when]``; ``[b:when]`` has only b.

    A whole number is a step, counted from 0, in which AUTOMATIC1111 still uses a.
    """
    number = max(0.0, _when(when))
    if "." in when or number < 1:
        return ("stop" if first_half else "start", format_number(min(number, 1.0)))
    if not first_half:
        return "start", format_number(number + 1)
    # A single 1 would be a fraction, the end of the pass.
    return "stop", "1.5" if number == 1 else format_number(number)


def _when(when: str) -> float:
    """The number as A1111 reads it: a fraction of the steps if it has a point, else a step."""
    # Limited, because a number of any length can be written, but not converted to an integer.
    number = max(-1e9, min(float(when), 1e9))
    return number if "." in when else float(int(number))
