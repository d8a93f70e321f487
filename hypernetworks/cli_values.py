"""Values on the command line: lists of numbers, sizes, options of an optimiser."""

from __future__ import annotations

import argparse
import ast


def integers(text: str) -> tuple[int, ...]:
    """``768,320``."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'"{text}" is no list of whole numbers such as 768,320'
        ) from None


def floats(text: str) -> tuple[float, ...]:
    """``1,2,1``."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is no list of numbers such as 1,2,1') from None


def option(text: str) -> tuple[str, object]:
    """``betas=(0.9,0.95)`` -> a pair."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        raise argparse.ArgumentTypeError(f'"{text}" is no option such as momentum=0.9') from None


def size(text: str) -> tuple[int, int]:
    """``512`` or ``512x768``."""
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isdigit() and len(part) < 6 for part in parts):
        raise argparse.ArgumentTypeError(f'"{text}" is not a size, write 512 or 512x768')
    return int(parts[0]), int(parts[-1])
