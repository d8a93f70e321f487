"""Parsers of values on the command line: lists of numbers, sizes, options of an optimizer."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Callable


def integers(text: str) -> tuple[int, ...]:
    """Parse whole numbers such as ``768,320``."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'"{text}" is not a list of whole numbers such as 768,320'
        ) from None


def floats(text: str) -> tuple[float, ...]:
    """Parse numbers such as ``1,2,1``."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'"{text}" is not a list of numbers such as 1,2,1'
        ) from None


def option(text: str) -> tuple[str, object]:
    """Parse ``betas=(0.9,0.95)`` as a name and a value."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        raise argparse.ArgumentTypeError(
            f'"{text}" is not an option such as momentum=0.9'
        ) from None


def integer(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers in ``[low, high]``."""

    def parse(text: str) -> int:
        # Without int() alone: it accepts 1_000 and digits of other scripts, and is slow for many.
        if not re.fullmatch(r"\d{1,19}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f'"{text}" is not a whole number from {low} to {high}')
        return int(text)

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """A parser of numbers in ``[low, high]``."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")  # is in no range

        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f'"{text}" is not a number from {low} to {high}')
        return value

    return parse


def size(text: str) -> tuple[int, int]:
    """Parse ``512`` or ``512x768`` as width and height."""
    match = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f'"{text}" is not a size: write 512 or 512x768')
    return int(match[1]), int(match[2] or match[1])
