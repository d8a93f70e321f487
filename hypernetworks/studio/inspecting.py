"""What is in a file, for people: a table, plots of its layers, and what is unusual about it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..engine.network import Hypernetwork
from ..errors import HypernetworkError
from ..files import read
from ..library import Inspection, Library, inspect, report_rows
from ..library.reporting import format_norm
from .widgets import text

SECONDS = 6.0
"""How long singular values may take; layers that come later go without."""
MOST_BARS, MOST_LINES, MOST_POINTS = 80, 48, 64


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one linear layer, falling."""

    label: str
    values: tuple[float, ...]


def report(name: str, library: Library) -> str:
    """Everything about one network of the library, as HTML.

    Raises:
        HypernetworkError: there is none of that name, or its file can't be read.
    """
    if not name:
        raise HypernetworkError("choose a network first")

    entry = library.find(name)
    network = read(entry.path)  # not cached: the library's cache is for networks that generate
    found = inspect(network, entry.path)
    spectra, left_out = singular_values(network, SECONDS)
    remark = (
        f"<p><small>{left_out} layers are not shown: they would take too long to "
        "analyze.</small></p>"
        if left_out
        else ""
    )

    return (
        f'<div class="studio-report">{_warnings(found)}{_table(found)}'
        f"<h3>Norms of the layers</h3>{_explained(_NORMS)}{_norms_plot(found)}"
        f"<h3>Singular values</h3>{_explained(_SPECTRA)}{_spectra_plot(spectra)}{remark}</div>"
    )


_NORMS = (
    "The strength of each linear layer, by context width and side (k: keys, v: values). Zero: no "
    "effect."
)
_SPECTRA = (
    "One line per layer, largest value first. A steep line means that a few directions carry the "
    "style."
)


def _explained(words: str) -> str:
    return f"<p><small>{text(words)}</small></p>"


def singular_values(network: Hypernetwork, seconds: float) -> tuple[list[Spectrum], int]:
    """The spectrum of every linear layer as long as time allows, and how many layers were left
    out.
    """
    deadline = time.monotonic() + seconds
    layers = [
        (f"{dim} {side} {index}", module.weight)
        for dim in network.widths
        for side, mlp in zip("kv", network.pairs[dim], strict=True)
        for index, module in enumerate(m for m in mlp.linear if isinstance(m, nn.Linear))
    ]
    spectra = []

    # Small layers first: where time runs out, most of them are shown.
    for label, weight in sorted(layers, key=lambda layer: layer[1].numel()):
        matrix = weight.detach().float()
        if (
            time.monotonic() > deadline
            or min(matrix.shape) > 1300
            or not bool(torch.isfinite(matrix).all())
        ):
            continue
        spectra.append(Spectrum(label, tuple(float(v) for v in torch.linalg.svdvals(matrix))))

    return spectra, len(layers) - len(spectra)


def _warnings(found: Inspection) -> str:
    if not found.warnings:
        return '<p class="studio-done">Nothing unusual about this file.</p>'
    items = "".join(
        f"<li>{text(warning[:1].upper() + warning[1:])}</li>" for warning in found.warnings
    )
    return f'<ul class="studio-messages studio-error">{items}</ul>'


def _table(found: Inspection) -> str:
    cells = "".join(
        f'<tr><th scope="row">{text(label)}</th><td>{text(value)}</td></tr>'
        for label, value in report_rows(found).items()
    )
    return f'<table class="studio-table"><tbody>{cells}</tbody></table>'


def _norms_plot(found: Inspection) -> str:
    bars = [
        (f"{n.width} {n.side} {i}", norm) for n in found.norms for i, norm in enumerate(n.norms)
    ][:MOST_BARS]
    # A layer that holds NaN or infinity would make all other bars vanish.
    highest = max((norm for _, norm in bars if math.isfinite(norm)), default=0.0) or 1.0
    rows, line = [], 15

    for index, (label, norm) in enumerate(bars):
        y = index * line
        width = round(280 * norm / highest, 1) if math.isfinite(norm) else 0
        shown = format_norm(norm) if math.isfinite(norm) else "not finite"
        rows.append(
            f'<text x="62" y="{y + 11}" text-anchor="end">{text(label)}</text>'
            f'<rect x="68" y="{y + 3}" width="{width}" height="9" rx="1"/>'
            f'<text x="{74 + width}" y="{y + 11}">{shown}</text>'
        )

    return _svg(420, max(len(bars), 1) * line, "Norms of the layers", "".join(rows))


def _spectra_plot(spectra: Sequence[Spectrum]) -> str:
    """Every spectrum over the share of its length, the values on a logarithmic axis of at most six
    decades.
    """
    highest = max((s.values[0] for s in spectra if s.values), default=0.0)
    if highest <= 0:
        return _explained("Nothing to plot: all layers are zero or not finite.")
    # Zeros have no place on a logarithmic axis: they are drawn at its lower end.
    smallest = min((v for s in spectra for v in s.values if v > 0), default=highest)
    top = math.ceil(math.log10(highest))
    decades = min(max(top - math.floor(math.log10(smallest)), 1), 6)

    def y(value: float) -> float:
        depth = top - math.log10(value) if value > 0 else decades
        return round(10 + 150 * min(max(depth, 0), decades) / decades, 1)

    grid = "".join(
        f'<line x1="44" x2="412" y1="{y(10.0**e)}" y2="{y(10.0**e)}"/>'
        f'<text x="38" y="{y(10.0**e) + 4}" text-anchor="end">{10.0**e:g}</text>'
        for e in range(top, top - decades - 1, -1)
    )
    lines = "".join(
        f'<polyline points="{_points(s.values, y)}"><title>{text(s.label)}</title></polyline>'
        for s in spectra[:MOST_LINES]
    )
    axis = (
        '<text x="44" y="180">largest</text><text x="412" y="180" text-anchor="end">smallest</text>'
    )
    return _svg(420, 186, "Singular values of the layers", grid + lines + axis)


def _points(values: Sequence[float], y: Callable[[float], float]) -> str:
    step = max(1, len(values) // MOST_POINTS)
    last = max(len(values) - 1, 1)
    return " ".join(
        f"{44 + 368 * i / last:.1f},{y(values[i])}" for i in range(0, len(values), step)
    )


def _svg(width: int, height: int, label: str, content: str) -> str:
    return (
        f'<div class="studio-plot"><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{text(label)}" '
        f'style="max-width:{width * 1.4:.0f}px">{content}</svg></div>'
    )
