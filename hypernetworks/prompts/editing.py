"""Recognises AUTOMATIC1111's prompt editing and alternation around a position, where tags can't work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..engine.multiplier import format_number

_NUMBER = re.compile(r"\s*\d*\.?\d+\s*")


@dataclass(frozen=True)
class Editing:
    """A ``[before:after:when]`` or ``[one|two]`` that encloses a position.

    Attributes:
        window: the tag argument that means the same, such as ``("start", "0.5")``; ``None`` for alternation.
    """

    window: tuple[str, str] | None


@dataclass
class Bracket:
    """A closed pair of square brackets, and the colons and bars on its own level."""

    opening: int
    closing: int = -1
    colons: list[int] = field(default_factory=list)
    bars: list[int] = field(default_factory=list)


def find_brackets(prompt: str) -> list[Bracket]:
    """All closed pairs of square brackets, inner ones first. A backslash escapes the next character.

    Args:
        prompt: with every tag replaced by as many null characters, so that colons in tags don't count.
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


def enclosing_editing(prompt: str, brackets: Sequence[Bracket], position: int) -> Editing | None:
    """The innermost prompt editing or alternation around ``position``, or ``None``."""
    for bracket in brackets:
        if not bracket.opening < position < bracket.closing:
            continue
        if bracket.bars and not bracket.colons:
            return Editing(None)
        if bracket.colons and _NUMBER.fullmatch(
            when := prompt[bracket.colons[-1] + 1 : bracket.closing]
        ):
            return Editing(_window(when, bracket.colons, position))
    return None


def _window(when: str, separators: list[int], position: int) -> tuple[str, str]:
    """``[a:b:when]``: a until then, b from then on; ``[b:when]`` is the second half alone.

    A whole number counts steps, and AUTOMATIC1111 lets the step of that number (from 0) still see a.
    """
    number = min(float(when), 1e9)  # a prompt may hold any number of digits
    first_half = len(separators) > 1 and position < separators[-2]
    if "." in when or number < 1:
        return ("stop" if first_half else "start", format_number(min(number, 1.0)))
    if not first_half:
        return "start", format_number(number + 1)
    return "stop", "1.5" if number == 1 else format_number(
        number
    )  # a lone 1 would mean the end of the pass
