"""A sheet as one image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...hosts.diffusers import Generation
from ...prompts import parse
from .planning import Cell, Plan

if TYPE_CHECKING:
    from PIL import ImageDraw
    from PIL.Image import Image

MOST_ACROSS = 8
"""Columns of a sheet beside one another."""
LARGEST = 48_000_000
"""Pixels of a sheet: it must be readable by this program, and by others."""
LEAST_EDGE, GAP, LABEL = 192, 8, 16


def heading(job: Generation) -> str:
    """The line above a sheet: the prompt, and the seed that all images share."""
    clean = " ".join(parse(job.prompt)[0].split())
    steps = "1 step" if job.steps == 1 else f"{job.steps} steps"
    return f"{clean[:90]}{'…' if len(clean) > 90 else ''}  (seed {job.seed}, {steps})"


def sheet(
    todo: Plan,
    images: Mapping[Cell, Image],
    title: str = "",
    notes: Mapping[str, str] | None = None,
) -> Image:
    """Join all images: labels above the columns and left of the rows, pages below one another;
    missing cells stay empty.

    After :data:`MOST_ACROSS` columns it goes on below, so that it can still be seen on a screen.

    Args:
        notes: a second line for a column, by its label.
    """
    layout = _Layout(todo, next(iter(images.values())).size, with_notes=bool(notes))
    from PIL import Image, ImageDraw

    paper = Image.new("RGB", layout.size, "white")
    draw = ImageDraw.Draw(paper)
    layout.write_labels(draw, title, notes or {})
    for cell, image in images.items():
        resized = image.convert("RGB").resize(layout.cell, Image.Resampling.BICUBIC)
        paper.paste(resized, layout.corner(cell))
    return paper


class _Layout:
    """Where everything is on the paper, in pixels."""

    def __init__(self, todo: Plan, size: tuple[int, int], *, with_notes: bool) -> None:
        from PIL import ImageFont

        self.columns, self.rows, self.pages = todo.labels
        self.font = ImageFont.load_default(LABEL)
        self.head = (LABEL + GAP) * (2 if with_notes else 1) + GAP
        self.across = min(len(self.columns), MOST_ACROSS)
        self.bands = -(-len(self.columns) // MOST_ACROSS)

        widest = max(round(self.font.getlength(name)) for name in self.rows)
        self.left = min(widest, 260) + 2 * GAP
        # The miniature's images are smaller than their labels.
        factor = max(1.0, LEAST_EDGE / min(size))
        self._fit(round(size[0] * factor), round(size[1] * factor))

    def _fit(self, width: int, height: int) -> None:
        """Choose the size of a cell, smaller where the paper would be too large."""
        self.cell = (width, height)
        pixels = self.size[0] * self.size[1]
        if pixels > LARGEST:
            factor = (LARGEST / pixels) ** 0.5
            self.cell = (max(1, int(width * factor)), max(1, int(height * factor)))

    @property
    def band(self) -> int:
        """Height of a line of columns with all rows."""
        return self.head + len(self.rows) * (self.cell[1] + GAP)

    @property
    def page(self) -> int:
        """Height of a page with its label."""
        return (LABEL + 2 * GAP if self.pages != ("",) else 0) + self.bands * self.band

    @property
    def size(self) -> tuple[int, int]:
        """Of the paper."""
        width = self.left + self.across * (self.cell[0] + GAP)
        return width, LABEL + 2 * GAP + len(self.pages) * self.page

    def corner(self, cell: Cell) -> tuple[int, int]:
        """The upper left corner of a cell."""
        page, row, column = cell
        # Many columns go on below, in further bands of all rows.
        down, along = divmod(column, MOST_ACROSS)
        top = LABEL + 2 * GAP + (page + 1) * self.page - self.bands * self.band
        y = top + down * self.band + self.head + row * (self.cell[1] + GAP)
        return self.left + along * (self.cell[0] + GAP), y

    def write_labels(self, draw: ImageDraw.ImageDraw, title: str, notes: Mapping[str, str]) -> None:
        """Write the title and all labels."""
        width = self.cell[0]
        draw.text((GAP, GAP), self._cut(title, self.size[0] - 2 * GAP), fill="#555", font=self.font)
        for page, of_page in enumerate(self.pages):
            top = self.corner((page, 0, 0))[1] - self.head - LABEL - GAP
            draw.text((GAP, top), self._cut(of_page, self.size[0]), fill="black", font=self.font)

            for column, label in enumerate(self.columns):
                x, y = self.corner((page, 0, column))
                lines = [label, notes[label]] if label in notes else [label]
                for number, line in enumerate(lines):
                    place = (x + width / 2, y - self.head + GAP + (LABEL + GAP) * (number + 0.5))
                    text = self._cut(line, width)
                    draw.text(place, text, fill="black", font=self.font, anchor="mm")

            for row, label in enumerate(self.rows):
                for first in range(0, len(self.columns), MOST_ACROSS):
                    place = (GAP, self.corner((page, row, first))[1] + self.cell[1] / 2)
                    text = self._cut(label, self.left - GAP)
                    draw.text(place, text, fill="black", font=self.font, anchor="lm")

    def _cut(self, text: str, width: float) -> str:
        """The text, shortened with an ellipsis to a width in pixels."""
        if self.font.getlength(text) <= width:
            return text
        while text and self.font.getlength(f"{text}…") > width:
            text = text[:-1]
        return f"{text}…"
