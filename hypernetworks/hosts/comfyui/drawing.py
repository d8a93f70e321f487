"""Pages and sheets as images. ComfyUI keeps images as ``(batch, height, width, 3)`` in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

TEXT, GAP, LINE = 16, 8, 24
_WIDTH, _LABEL, _LEAST_EDGE = 720, 170, 128


def as_image(*images: Image.Image) -> torch.Tensor:
    """Images of one size as ComfyUI has them."""
    arrays = [np.asarray(image.convert("RGB"), dtype=np.float32) / 255 for image in images]
    return torch.from_numpy(np.stack(arrays))


def pictures(images: torch.Tensor) -> list[Image.Image]:
    """The reverse."""
    numbers = (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return [Image.fromarray(one) for one in numbers]


def page(
    title: str, rows: Sequence[tuple[str, str]], bars: Sequence[tuple[str, Sequence[float]]]
) -> Image.Image:
    """A table, and below it a group of bars for each label.

    Args:
        title: above the table.
        rows: label and text; long texts go on in further lines.
        bars: label, and lengths of the bars.
    """
    font = ImageFont.load_default(TEXT)
    lines = [
        (label if number == 0 else "", part)
        for label, text in rows
        for number, part in enumerate(_wrapped(text, font, _WIDTH - _LABEL - 2 * GAP))
    ]

    height = 2 * GAP + LINE * (2 + len(lines) + (len(bars) + 1 if bars else 0))
    paper = Image.new("RGB", (_WIDTH, height), "white")
    draw = ImageDraw.Draw(paper)
    draw.text((GAP, GAP), title, fill="black", font=font)

    y = GAP + 2 * LINE
    for label, text in lines:
        draw.text((GAP, y), label, fill="#666", font=font)
        draw.text((_LABEL, y), text, fill="black", font=font)
        y += LINE

    if bars:
        _draw_bars(draw, bars, y, font)
    return paper


def _draw_bars(
    draw: ImageDraw.ImageDraw, bars: Sequence[tuple[str, Sequence[float]]], y: float, font: Any
) -> None:
    """One line per label, its bars side by side, all to one scale."""
    # A damaged network may hold infinities: they get no bar, and must not flatten the others.
    finite = [n for _, norms in bars for n in norms if np.isfinite(n)]
    largest = max(finite, default=0.0) or 1.0
    draw.text((GAP, y), "norms of the layers, first to last", fill="#666", font=font)

    for label, norms in bars:
        y += LINE
        draw.text((GAP, y), label, fill="#666", font=font)
        room = (_WIDTH - _LABEL - GAP) / max(1, len(norms))
        for number, norm in enumerate(norms):
            left = _LABEL + number * room
            length = (room - 70) * (norm / largest if np.isfinite(norm) else 0)
            draw.rectangle((left, y + 4, left + length, y + LINE - 6), fill="#4878a8")
            draw.text((left + length + 4, y), f"{norm:.3g}", fill="black", font=font)


def sheet(cells: Sequence[Image.Image], rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """Images row by row, with a label left of each row and one above each column."""
    font = ImageFont.load_default(TEXT)
    # Labels must stay readable above small images.
    factor = max(1.0, _LEAST_EDGE / min(cells[0].size))
    width, height = (round(edge * factor) for edge in cells[0].size)
    left = min(260, max(round(font.getlength(name)) for name in rows)) + 2 * GAP
    top = LINE + 2 * GAP
    paper = Image.new(
        "RGB", (left + len(columns) * (width + GAP), top + len(rows) * (height + GAP)), "white"
    )
    draw = ImageDraw.Draw(paper)

    for number, label in enumerate(columns):
        middle = left + number * (width + GAP) + width / 2
        draw.text((middle, top / 2), label, fill="black", font=font, anchor="mm")
    for number, label in enumerate(rows):
        middle = top + number * (height + GAP) + height / 2
        text = _wrapped(label, font, left - GAP)[0]
        draw.text((GAP, middle), text, fill="black", font=font, anchor="lm")

    for number, cell in enumerate(cells):
        row, column = divmod(number, len(columns))
        corner = (left + column * (width + GAP), top + row * (height + GAP))
        paper.paste(cell.resize((width, height), Image.Resampling.BICUBIC), corner)
    return paper


def _wrapped(text: str, font: Any, width: float) -> list[str]:
    """Lines of at most this width in pixels; at least one."""
    length = font.getlength
    lines, line = list[str](), ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and length(longer) > width:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line]
