"""Schedules as curves over the steps, drawn as SVG."""

from __future__ import annotations

from ..engine.multiplier import Multiplier, format_number
from ..prompts import parse
from .safety import text

WIDTH, HEIGHT, MARGIN = 320, 90, 26
MOST_CURVES = 8


def curves_of(prompt: str, steps: int) -> str:
    """A figure for every tag of a prompt whose multiplier changes over the steps; empty where none does."""
    scheduled = [
        (tag, tag.multiplier)
        for tag in parse(prompt)[1]
        if tag.multiplier is not None and not _is_flat(tag.multiplier, steps)
    ]
    return "".join(
        f"<figure>{curve(multiplier, steps)}<figcaption>{text(tag.name)}</figcaption></figure>"
        for tag, multiplier in scheduled[:MOST_CURVES]
    )


def _is_flat(multiplier: Multiplier, steps: int) -> bool:
    return multiplier.is_constant or len({multiplier.at(step, steps) for step in range(steps)}) == 1


def curve(multiplier: Multiplier, steps: int) -> str:
    """The multiplier at each step as an SVG: its line, the zero line, and the numbers at both axes."""
    values = [multiplier.at(step, steps) for step in range(steps)]
    low, high = min(0.0, *values), max(0.0, *values)
    span = high - low or 1.0

    def y(value: float) -> float:
        return round(8 + (HEIGHT - 24) * (high - value) / span, 1)

    def x(step: int) -> float:
        return round(MARGIN + 8 + (WIDTH - MARGIN - 16) * (step / (steps - 1) if steps > 1 else 0.5), 1)

    points = " ".join(f"{x(step)},{y(value)}" for step, value in enumerate(values))
    dots = "".join(f'<circle cx="{x(s)}" cy="{y(v)}" r="2"/>' for s, v in enumerate(values)) if steps <= 60 else ""
    labels = "".join(
        f'<text x="{MARGIN}" y="{y(value) + 4}" text-anchor="end">{_short(value)}</text>'
        for value in sorted({low, high, 0.0})
    )
    said = f"from {_short(values[0])} to {_short(values[-1])} over {steps} steps"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="multiplier {said}">'
        f'<line x1="{MARGIN + 4}" x2="{WIDTH - 4}" y1="{y(0.0)}" y2="{y(0.0)}"/>'
        f'<polyline points="{points}"/>{dots}{labels}'
        f'<text x="{x(0)}" y="{HEIGHT - 2}">step 1</text>'
        f'<text x="{x(steps - 1)}" y="{HEIGHT - 2}" text-anchor="end">{steps}</text></svg>'
    )


def _short(value: float) -> str:
    return format_number(round(value, 2))
