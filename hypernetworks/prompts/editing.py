"""Recognises AUTOMATIC1111's prompt editing and alternation around a position, where tags can't work."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..engine.multiplier import format_number

_NUMBER = re.compile(r"\s*\d*\.?\d+\s*")


@dataclass(frozen=True)
class Editing:
    """A ``[before:after:when]`` or ``[one|two]`` that encloses a position.

    Attributes:
        window: the tag argument that means the same, such as ``("start", "0.5")``; ``None`` for alternation.
    """

    window: tuple[str, str] | None


def enclosing_editing(prompt: str, position: int) -> Editing | None:
    """The innermost prompt editing or alternation around ``position``, or ``None``.

    Args:
        prompt: with every tag replaced by as many null characters, so that colons in tags don't count.
    """
    for opening in _open_brackets(prompt, position):
        parts, closing = _parts(prompt, opening)
        if closing is None:
            continue
        separators = [index for character, index in parts if character == ":"]
        if any(character == "|" for character, _ in parts) and not separators:
            return Editing(None)
        if separators and _NUMBER.fullmatch(prompt[separators[-1] + 1 : closing]):
            return Editing(_window(prompt[separators[-1] + 1 : closing], separators, position))
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
    return "stop", "1.5" if number == 1 else format_number(number)  # a lone 1 would mean the end of the pass


def _open_brackets(prompt: str, position: int) -> list[int]:
    """Square brackets that are open at ``position``, innermost first. A backslash escapes the next character."""
    stack: list[int] = []
    index = 0
    while index < position:
        character = prompt[index]
        if character == "\\":
            index += 1
        elif character == "[":
            stack.append(index)
        elif character == "]" and stack:
            stack.pop()
        index += 1
    return stack[::-1]


def _parts(prompt: str, opening: int) -> tuple[list[tuple[str, int]], int | None]:
    """Colons and bars on the level of one bracket, and where it closes."""
    found: list[tuple[str, int]] = []
    depth, index = 0, opening + 1
    while index < len(prompt):
        character = prompt[index]
        if character == "\\":
            index += 1
        elif character in "[(":
            depth += 1
        elif character in "])":
            if character == "]" and depth == 0:
                return found, index
            depth = max(0, depth - 1)
        elif character in ":|" and depth == 0:
            found.append((character, index))
        index += 1
    return found, None
