"""What is typed for an axis, as the values that it means: the ways of webuis' X/Y/Z plot."""

from __future__ import annotations

import csv
import re

from ...engine.blocks import parse_blocks
from ...engine.multiplier import Schedule, format_number
from ...errors import HypernetworkError

MOST_VALUES = 200
_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_RANGE = re.compile(
    rf"\s*({_NUMBER})\s*-\s*({_NUMBER})\s*(?:\(\s*({_NUMBER})\s*\)|\[\s*(\d+)\s*\])?\s*"
)
"""``1-5``, ``1-10 (+2)`` (in steps of two), or ``0-1 [5]`` (five values)."""


def words(text: str) -> tuple[str, ...]:
    """Texts with commas between; one that has commas itself stands in quotation marks."""
    # Names of networks and words of prompts have commas.
    rows = csv.reader([text.replace("\n", ",")], skipinitialspace=True)
    found = [part.strip() for row in rows for part in row if part.strip()]
    return tuple(dict.fromkeys(found))


def numbers(text: str, *, whole: bool) -> tuple[str, ...]:
    """Numbers and ranges with commas between.

    Args:
        whole: fractions are refused.

    Raises:
        HypernetworkError: a part is neither, or a range has too many values.
    """
    found: list[float] = []
    for part in text.split(","):
        if part.strip():
            found += _range(part)

    if whole and any(value != int(value) for value in found):
        raise HypernetworkError(f'"{text}" must be whole numbers, such as 10, 20 or 10-50 (+10)')
    return tuple(dict.fromkeys(format_number(value) for value in found))


def _range(part: str) -> list[float]:
    """The values of one number or range."""
    if re.fullmatch(_NUMBER, part.strip()):
        return [float(part)]
    match = _RANGE.fullmatch(part)
    if match is None:
        raise HypernetworkError(
            f'"{part.strip()}" is not a number or a range: write 5, 1-5, 1-9 (+2) or 0-1 [5]'
        )

    low, high = float(match[1]), float(match[2])
    if match[4] is not None:
        count = int(match[4])
        step = (high - low) / max(count - 1, 1)
    else:
        step = abs(float(match[3] or 1)) * (1 if high >= low else -1)
        # A little more, as 0-1 (+0.1) would lose its last value to rounding.
        count = int((high - low) / step + 1e-9) + 1 if step else 0

    if not 1 <= count <= MOST_VALUES:
        raise HypernetworkError(
            f"the range {part.strip()} has {count} values: choose 1 to {MOST_VALUES}"
        )
    return [round(low + step * number, 6) for number in range(count)]


def multipliers(text: str) -> tuple[str, ...]:
    """Multipliers and schedules; a comma inside a schedule (``0@0,1@0.5``) needs blanks around the
    others. Empty is 1 alone.

    Raises:
        MultiplierError: one of them is none.
    """
    # Schedules have @, and may have signs that look like a range.
    if re.search(r"[\[(]|\d\s*-\s*\d", text) and "@" not in text:
        return numbers(text, whole=False)

    found = [
        part
        for word in text.replace(";", " ").split()
        for part in ([word.strip(",")] if "@" in word else word.split(","))
        if part
    ]
    for value in found:
        Schedule.parse(value)
    return tuple(dict.fromkeys(found)) or ("1",)


def blocks(text: str) -> tuple[str, ...]:
    """Presets and lists of block factors; with lists, semicolons stand between.

    Raises:
        MultiplierError: one of them is neither.
    """
    # A comma is inside a list there, and can't part two of them.
    has_list = re.search(r"\d\s*,\s*\d", text) is not None
    parts = re.split(r"[;\n]" if has_list else r"[;,\n]", text)
    found = ["".join(part.split()).strip(",") for part in parts if part.strip(" ,")]
    for value in found:
        parse_blocks(value)
    return tuple(dict.fromkeys(found))
