"""The readable files of a run: a CSV, the loss curve as an image, and previews side by side."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import FileWriteError
from ..files.writing import replace as replace_file
from .checkpoints import make_folder
from .health import TrainingStep

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

Item = TypeVar("Item")

COLUMNS = ("step", "loss", "smoothed", "validation", "rate", "gradient_norm", "seconds")
"""Of ``log.csv``; ``validation`` is empty where it was not measured."""
SIZE, MARGIN = (960, 480), (64, 24, 24, 40)
"""Of the curve in pixels, and its left, top, right and bottom border."""
_INK, _GREY, _LIGHT, _BLUE, _ORANGE = "#222222", "#777777", "#dddddd", "#2563eb", "#d97706"


class Log:
    """``log.csv`` of a run; a resumed run continues after the step it resumes from.

    Args:
        folder: of the run; made if need be.
        step: rows after this one are from steps that were lost, and go.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        make_folder(folder)
        self.path = folder / "log.csv"
        self.rows = [row for row in read_log(self.path) if row["step"] <= step]
        self._is_whole = False

    def add(self, done: TrainingStep) -> None:
        """Append a step; the file has it at once.

        Raises:
            FileWriteError: the file is in use, say; the next step tries again with what is missing.
        """
        row = {column: getattr(done, column) for column in COLUMNS}
        self.rows.append(row)
        # After a failed write the file is written anew, with all rows that are missing.
        is_whole, self._is_whole = self._is_whole, False
        if is_whole:
            try:
                with self.path.open("a", encoding="utf-8", newline="") as file:
                    csv.writer(file).writerow(_cells(row))
            except OSError as error:
                raise FileWriteError(
                    f"{self.path}: it can't be written ({error.strerror or error})"
                ) from error
        else:
            replace_file(self.path, self._write_all)

        self._is_whole = True

    def _write_all(self, temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *map(_cells, self.rows)])


def _cells(row: dict[str, Any]) -> list[str]:
    return ["" if row[column] is None else f"{row[column]:.7g}" for column in COLUMNS]


def read_log(path: Path) -> list[dict[str, Any]]:
    """Rows of a ``log.csv``, numbers as numbers; what is no row of numbers, or no file to read, is
    left out.
    """
    rows: list[dict[str, Any]] = []
    with suppress(OSError, UnicodeDecodeError), path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                numbers: dict[str, Any] = {c: float(row[c]) if row[c] else None for c in COLUMNS}
                rows.append(numbers | {"step": int(row["step"])})
            except (TypeError, ValueError, KeyError):
                continue
    return rows


def draw_curve(rows: Sequence[dict[str, Any]], title: str = "") -> Image:
    """The loss over the steps: every step pale, smoothed in blue, validation in orange; on a
    logarithmic scale.
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    series = {
        "each step": (_LIGHT, [(r["step"], r["loss"]) for r in rows]),
        "smoothed": (_BLUE, [(r["step"], r["smoothed"]) for r in rows]),
        "validation": (
            _ORANGE,
            [(r["step"], r["validation"]) for r in rows if r["validation"] is not None],
        ),
    }
    points = [
        (s, v) for _, line in series.values() for s, v in line if v and math.isfinite(v) and v > 0
    ]
    if points:
        scale = _Scale(points)
        _draw_axes(draw, scale)
        for colour, line in series.values():
            _draw_line(draw, scale, line, colour)
    _draw_legend(draw, title, {name: colour for name, (colour, line) in series.items() if line})
    return image


class _Scale:
    """Steps and losses to pixels."""

    def __init__(self, points: Sequence[tuple[int, float]]) -> None:
        self.last = max(2, *(step for step, _ in points))
        logs = [math.log10(value) for _, value in points]
        middle, half = (max(logs) + min(logs)) / 2, max((max(logs) - min(logs)) / 2, 0.05)
        self.low, self.high = middle - 1.05 * half, middle + 1.05 * half

    def at(self, step: float, value: float) -> tuple[float, float]:
        left, top, right, bottom = MARGIN
        across = (step - 1) / (self.last - 1)
        up = (math.log10(value) - self.low) / (self.high - self.low)
        return left + across * (SIZE[0] - left - right), SIZE[1] - bottom - up * (
            SIZE[1] - top - bottom
        )


def _draw_line(
    draw: ImageDraw, scale: _Scale, line: Sequence[tuple[int, float]], colour: str
) -> None:
    found = [
        scale.at(step, value)
        for step, value in line
        if value and math.isfinite(value) and value > 0
    ]
    if len(found) > 1:
        draw.line(found, fill=colour, width=1 if colour == _LIGHT else 2, joint="curve")
    if colour == _ORANGE:
        for x, y in found:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)


def _draw_axes(draw: ImageDraw, scale: _Scale) -> None:
    font = _font(13)
    for value in _round_values(10**scale.low, 10**scale.high):
        x, y = scale.at(1, value)
        draw.line([(x, y), (SIZE[0] - MARGIN[2], y)], fill=_LIGHT)
        draw.text((x - 8, y), f"{value:g}", fill=_GREY, font=font, anchor="rm")
    for share in (0.25, 0.5, 0.75, 1.0):
        step = max(1, round(scale.last * share))
        x = scale.at(step, 1.0)[0]
        draw.text((x, SIZE[1] - MARGIN[3] + 8), f"{step:,}", fill=_GREY, font=font, anchor="ma")


def _round_values(low: float, high: float) -> list[float]:
    """Round numbers in between, not too many."""
    tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in (
        (1,),
        (1, 3),
        (1, 2, 5),
        (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9),
        tuple(1 + i / 20 for i in range(180)),
    ):
        found = [
            step * 10.0**ten for ten in tens for step in steps if low <= step * 10.0**ten <= high
        ]
        if len(found) >= 3:
            return found[:: max(1, len(found) // 8)]

    return [low, high]


def _draw_legend(draw: ImageDraw, title: str, names: dict[str, str]) -> None:
    font, x = _font(14), float(SIZE[0] - MARGIN[2])
    for name, colour in reversed(names.items()):
        draw.text((x, 4), name, fill=_GREY if colour == _LIGHT else colour, font=font, anchor="ra")
        x -= draw.textlength(name, font=font) + 20
    draw.text((MARGIN[0], 4), title, fill=_INK, font=font)


def _font(size: int) -> Any:
    from PIL import ImageFont

    try:
        return ImageFont.load_default(size)
    except (TypeError, OSError):  # Pillow before 10.1, or without FreeType
        return ImageFont.load_default()


def save_curve(rows: Sequence[dict[str, Any]], folder: Path, title: str = "") -> Path:
    """Write ``curve.png`` into a run's folder."""
    image, path = draw_curve(rows, title), folder / "curve.png"
    replace_file(path, lambda temporary: image.save(temporary, format="PNG"))
    return path


def save_preview(folder: Path, step: int, number: int, image: Image) -> Path:
    """Write ``previews/NUMBER-STEP.png``."""
    make_folder(folder / "previews")
    path = folder / "previews" / f"{number + 1}-{step:06d}.png"
    replace_file(path, lambda temporary: image.save(temporary, format="PNG"))
    return path


def save_sheet(folder: Path, step: int, most: int = 8) -> Path | None:
    """Write ``previews.png``: a row per prompt, a column per step; at most ``most``, evenly spread
    up to ``step``.
    """
    found: dict[int, dict[int, Path]] = {}
    for path in (folder / "previews").glob("*-*.png"):
        row, _, column = path.stem.partition("-")
        if row.isdigit() and column.isdigit() and int(column) <= step:
            found.setdefault(int(column), {})[int(row)] = path
    steps = sorted(found)
    if not steps:
        return None

    steps = evenly(steps, most)
    sheet, path = _sheet({at: found[at] for at in steps}), folder / "previews.png"
    replace_file(path, lambda temporary: sheet.save(temporary, format="PNG"))
    return path


def evenly(items: list[Item], most: int) -> list[Item]:
    """At most so many (two or more) of the items, evenly spread, first and last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _sheet(columns: dict[int, dict[int, Path]]) -> Image:
    """Images by step and row, labelled, each fitted into a field of the first one's shape; small
    ones are shown larger.
    """
    from PIL import Image, ImageDraw, ImageOps

    rows = sorted({row for pictures in columns.values() for row in pictures})
    last = columns[max(columns)]
    with Image.open(last[min(last)]) as first:
        scale = max(1, round(192 / first.width))
        edge, head = (first.width * scale, first.height * scale), 24
    sheet = Image.new("RGB", (edge[0] * len(columns), edge[1] * len(rows) + head), "white")
    draw = ImageDraw.Draw(sheet)
    for x, (step, pictures) in enumerate(columns.items()):
        draw.text(
            ((x + 0.5) * edge[0], head / 2),
            f"step {step:,}",
            fill=_INK,
            font=_font(14),
            anchor="mm",
        )
        for row, path in pictures.items():
            with Image.open(path) as image:
                fitted = ImageOps.contain(image.convert("RGB"), edge)
            left, top = x * edge[0], head + rows.index(row) * edge[1]
            middle = ((edge[0] - fitted.width) // 2, (edge[1] - fitted.height) // 2)
            sheet.paste(fitted, (left + middle[0], top + middle[1]))
    return sheet
