"""What the Train tab shows of a training: its figures, its curves, its previews side by side over
the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...training.records import evenly
from ..html import data_url, empty_html, text
from .state import State, duration

if TYPE_CHECKING:
    from ...training import TrainingStep

HINT = (
    "Train a hypernetwork of your own: choose images and press Train, or press Train on an "
    "example: the miniature learns the look of blueprints in a minute or two."
)
MOST_POINTS = 240
MOST_COLUMNS = 12
Line = list[tuple[int, float]]


def progress(state: State, hint: str = HINT) -> str:
    """The bar, what is being done, and the figures of the last step.

    Args:
        hint: stands there before the first training.
    """
    if not state.name:
        return empty_html(hint)
    if not state.is_running:
        return _ended(state)
    known = f' max="{state.total}" value="{state.done}"' if state.total else ""
    note = f"<p><b>{text(state.name)}</b> · {text(state.note)}</p><progress{known}></progress>"
    return f'<div class="studio-progress studio-training">{note}{_figures(state.rows)}</div>'


def _ended(state: State) -> str:
    if state.kept_as is None:
        return (
            f'<p class="studio-done" role="status">{text(state.name)}: the training has ended</p>'
        )
    name = text(state.kept_as)
    button = (
        f'<button type="button" class="studio-try" data-name="{name}">Add it to the prompt</button>'
    )
    said = (
        f"<b>{name}</b> is in the library, after "
        f"{state.rows[-1].step if state.rows else state.done} steps."
    )
    return (
        f'<p class="studio-done studio-trained" role="status" data-new="{name} '
        f'{state.number}">{said} {button}</p>'
    )


def _figures(rows: Sequence[TrainingStep]) -> str:
    if not rows:
        return ""

    last = rows[-1]
    validation = next(
        (row.validation for row in reversed(rows) if row.validation is not None), None
    )
    figures = {
        "loss": f"{last.smoothed:.4f}",
        "validation loss": "–" if validation is None else f"{validation:.4f}",
        "learning rate": f"{last.rate:.2g}",
        "gradient norm": f"{last.gradient_norm:.3g}",
        "steps per second": f"{last.steps_per_second:.2g}",
        "time left": duration(last.seconds_left),
    }
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures.items()
    )

    return f'<dl class="studio-figures">{cells}</dl>'


def curves(state: State) -> str:
    """The loss over the steps, with learning rate and gradient norm below; empty before the second
    step.
    """
    rows = list(state.rows)
    if len(rows) < 2:
        return ""

    loss = _plot(
        "Loss",
        {
            "each step": _line(rows, lambda row: row.loss),
            "smoothed": _line(rows, lambda row: row.smoothed),
            "validation": [
                (row.step, row.validation) for row in rows if row.validation is not None
            ],
        },
        height=200,
        logarithmic=True,
    )
    rate = _plot("Learning rate", {"smoothed": _line(rows, lambda row: row.rate)}, width=300)
    norm = _plot(
        "Gradient norm", {"smoothed": _line(rows, lambda row: row.gradient_norm)}, width=300
    )

    return f'<div class="studio-plot studio-curves">{loss}<div>{rate}{norm}</div></div>'


def _line(rows: Sequence[TrainingStep], value: Callable[[TrainingStep], float]) -> Line:
    """At most :data:`MOST_POINTS` of the steps, the last one always among them."""
    every = max(1, math.ceil(len(rows) / MOST_POINTS))
    chosen = [*rows[:-1:every], rows[-1]]
    return [(row.step, value(row)) for row in chosen if math.isfinite(value(row))]


@dataclass(frozen=True)
class _Frame:
    """From steps and values to a place on the paper."""

    first: int
    last: int
    low: float
    high: float
    size: tuple[int, int]
    logarithmic: bool

    def x(self, step: int) -> float:
        return round(
            44 + (self.size[0] - 52) * (step - self.first) / max(1, self.last - self.first), 1
        )

    def y(self, value: float) -> float:
        height = self._height(value)
        return round(
            22 + (self.size[1] - 40) * (self._height(self.high) - height) / self._span(), 1
        )

    def _height(self, value: float) -> float:
        return math.log(max(value, 1e-12)) if self.logarithmic else value

    def _span(self) -> float:
        return self._height(self.high) - self._height(self.low) or 1.0


def _plot(
    title: str,
    lines: dict[str, Line],
    *,
    width: int = 640,
    height: int = 110,
    logarithmic: bool = False,
) -> str:
    """Lines by their name, which is also their look: "each step" pale, "smoothed" plain,
    "validation" dotted.
    """
    points = [point for line in lines.values() for point in line if point[1] > 0 or not logarithmic]
    if not points:
        return ""

    values = [value for _, value in points]
    low, high = (min(values), max(values)) if logarithmic else (min(0.0, *values), max(values))
    frame = _Frame(
        points[0][0], max(step for step, _ in points), low, high, (width, height), logarithmic
    )
    drawn = "".join(_drawn(name, line, frame) for name, line in lines.items() if line)
    marks = "".join(
        f'<line x1="44" x2="{width - 8}" y1="{frame.y(value)}" y2="{frame.y(value)}"/>'
        f'<text x="40" y="{frame.y(value) + 4}" text-anchor="end">{value:.2g}</text>'
        for value in _ticks(low, high, logarithmic)
    )
    marks += "".join(
        f'<text x="{frame.x(step)}" y="{height - 4}" text-anchor="middle">{step:,}</text>'
        for step in _steps_between(frame.first, frame.last)
    )
    legend = (
        "" if len(lines) == 1 else _legend([name for name, line in lines.items() if line], width)
    )
    said = f"{title} from {values[0]:.3g} to {values[-1]:.3g}, step {frame.first} to {frame.last}"

    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{text(said)}" '
        f'data-frame="{frame.first} {frame.last} {low:.6g} {high:.6g} {int(logarithmic)}">'
        f"{marks}{drawn}"
        f'<text x="44" y="12">{text(title)}</text>{legend}<text x="44" y="{height - 4}">step '
        f"{frame.first}</text>"
        f'<text x="{width - 8}" y="{height - 4}" text-anchor="end">{frame.last}</text></svg>'
    )


def _ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """Round values of an axis, three or four of them where the range allows it; else its ends."""
    if logarithmic and low > 0:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        inside = [value for value in found if low <= value <= high]
        return inside[:: max(1, len(inside) // 4)] if len(inside) > 1 else [low, high]

    step = _round_step(high - low)
    if not step:
        return [low]
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _round_step(span: float) -> float:
    """A distance of 1, 2 or 5 times a power of ten, of which two to five fit into a range."""
    if not span > 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(span / 2))
    return next(power * digit for digit in (5, 2, 1) if span / (power * digit) >= 2)


def _steps_between(first: int, last: int) -> list[int]:
    """Round steps away from both ends, which have labels of their own."""
    gap = max(1, round(_round_step(last - first))) if last > first else 0
    near = (last - first) * 0.12
    if not gap:
        return []
    found = range((first // gap + 1) * gap, last, gap)
    return [step for step in found if step - first > near and last - step > near]


def _drawn(name: str, line: Line, frame: _Frame) -> str:
    look = f"studio-{name.replace(' ', '-')}"
    training_folders = [(frame.x(step), frame.y(value)) for step, value in line]
    dots = (
        "".join(f'<circle class="{look}" cx="{x}" cy="{y}" r="3"/>' for x, y in training_folders)
        if name == "validation"
        else ""
    )
    joined = " ".join(f"{x},{y}" for x, y in training_folders)
    return f'<polyline class="{look}" points="{joined}"/>{dots}'


def _legend(names: Sequence[str], width: int) -> str:
    at, found = width - 8, ""
    for name in reversed(names):
        found += (
            f'<text class="studio-{name.replace(" ", "-")}" x="{at}" y="12" '
            f'text-anchor="end">{name}</text>'
        )
        at -= 6 * len(name) + 18
    return found


def previews(state: State) -> str:
    """A row for each prompt, a column for each step, the newest at the right; evenly spread where
    they are many.
    """
    shown = evenly(list(state.previews), MOST_COLUMNS)
    if not shown:
        return ""

    heads = "".join(f'<th scope="col">{step}</th>' for step, _ in shown)
    rows = ""
    for number in range(max(len(pictures) for _, pictures in shown)):
        cells = ""
        for step, pictures in shown:
            source = data_url(pictures[number]) if number < len(pictures) else ""
            cells += f'<td><img src="{source}" alt="Preview {number + 1} at step {step}"></td>'
        rows += f"<tr>{cells}</tr>"
    return f'<div class="studio-strip" tabindex="0"><table><tr>{heads}</tr>{rows}</table></div>'
