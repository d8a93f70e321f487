"""One seed, many settings: a sheet of images over multipliers, networks, or both."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..engine.multiplier import Schedule
from ..errors import HypernetworkError
from ..hosts.diffusers import Generation, Picture
from ..library import Library
from ..prompts import Tag, parse
from ..prompts.rewriting import add_tag, rewrite_tags
from .job_queue import Update

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..hosts.diffusers import Painter

MOST_CELLS = 100
MOST_NETWORKS = 6
"""How many networks are compared when none is named."""
MOST_ACROSS = 8
"""Columns of a sheet beside one another."""
LEAST_EDGE, GAP, LABEL = 192, 8, 16


@dataclass(frozen=True)
class Plan:
    """What a sheet shows: a row for each network, a column for each multiplier.

    Attributes:
        prompts: by row and column.
    """

    networks: tuple[str, ...]
    multipliers: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Row and column in the order of the work: row by row, so that each network's file is read
        once.
        """
        return [
            (row, column)
            for row in range(len(self.networks))
            for column in range(len(self.multipliers))
        ]

    @property
    def different_cells(self) -> list[tuple[int, int]]:
        """Those that have an image of their own."""
        return [cell for cell in self.cells if self.same_as(*cell)[0] == cell]

    def same_as(self, row: int, column: int) -> list[tuple[int, int]]:
        """All cells that show the same image as this one: without a network, every row does."""
        points = Schedule.parse(self.multipliers[column]).points
        if any(value for value, _ in points):
            return [(row, column)]
        return [(each, column) for each in range(len(self.networks))]


def plan(prompt: str, networks: Sequence[str], multipliers: str, library: Library) -> Plan:
    """Work out the prompts of a sheet.

    Args:
        prompt: as typed; tags of networks that are not compared stay in every picture.
        networks: names as in tags. None: those of the prompt, or the library's first.
        multipliers: numbers or schedules with blanks, commas or semicolons between; empty is 1
            alone.

    Raises:
        HypernetworkError: nothing to compare, too much of it, or a multiplier that is none.
    """
    columns = split_multipliers(multipliers)
    chosen = tuple(networks) or tuple(
        dict.fromkeys(tag.name for tag in parse(prompt)[1] if tag.error is None)
    )
    chosen = chosen or tuple(library.name_of(entry) for entry in library.entries[:MOST_NETWORKS])
    if not chosen:
        raise HypernetworkError(
            "there is no network to compare: drop a hypernetwork file on the page first"
        )
    if len(chosen) * len(columns) > MOST_CELLS:
        raise HypernetworkError(
            f"the sheet would have {len(chosen) * len(columns)} images: choose at most {MOST_CELLS}"
        )

    for name in chosen:
        library.find(name)  # an unknown name is reported before the work, not after
    rows = tuple(
        tuple(_prompt(prompt, chosen, name, value) for value in columns) for name in chosen
    )

    return Plan(chosen, columns, rows)


def split_multipliers(text: str) -> tuple[str, ...]:
    """The multipliers of a line; a comma inside a schedule (``0@0,1@0.5``) needs blanks around the
    others.

    Raises:
        MultiplierError: one of them is none.
    """
    words = text.replace(";", " ").split()
    found = [
        part
        for word in words
        for part in ([word.strip(",")] if "@" in word else word.split(","))
        if part
    ]
    for value in found:
        Schedule.parse(value)

    return tuple(dict.fromkeys(found)) or ("1",)


def _prompt(prompt: str, compared: Sequence[str], name: str, value: str) -> str:
    """The prompt with this one of the compared networks, at this multiplier; named arguments of its
    tag stay.
    """
    seen: list[Tag] = []

    def change(tag: Tag) -> Tag | None:
        if tag.name not in compared:
            return tag
        if tag.name != name:
            return None
        seen.append(tag)
        return tag.with_multiplier(value)

    text = rewrite_tags(prompt, change)
    return text if seen else add_tag(text, Tag((name, value)))


@dataclass(frozen=True)
class Compared:
    """What came of a comparison.

    Attributes:
        sheet: with the infotext of its first image; ``None`` where there is no image.
        made, wanted: cells of the sheet that have an image, and that should have one.
    """

    sheet: Picture | None
    messages: list[str]
    made: int
    wanted: int


def summary(compared: Compared) -> str:
    """How many images a sheet has, and of how many where some are missing."""
    count = "1 image" if compared.made == 1 else f"{compared.made} images"
    of_all = "" if compared.made == compared.wanted else f" of {compared.wanted}"
    return f"{count}{of_all} on one sheet"


def compare(
    painter: Painter,
    job: Generation,
    todo: Plan,
    tell: Callable[[Update], None],
    cancelled: threading.Event,
) -> Compared:
    """Generate a sheet's images and join them; when cancelled, the sheet holds those that are
    finished.

    A network that doesn't fit the model is left out. Images at multiplier 0 are the same in each
    row, and generated once.
    """
    todo, left_out = _fitting_rows(painter, todo)
    messages = dict.fromkeys(left_out)
    cells = todo.different_cells
    made: dict[tuple[int, int], Picture] = {}
    began, total = time.monotonic(), len(cells) * job.steps

    for number, (row, column) in enumerate(cells, 1):
        where = (
            f"Image {number} of {len(cells)}: {todo.networks[row]} at {todo.multipliers[column]}"
        )
        before = (number - 1) * job.steps

        def on_step(step: int, _steps: int, before: int = before, where: str = where) -> bool:
            done = before + min(step, job.steps)
            tell(Update(done, total, where + _left(began, done, total)))
            return not cancelled.is_set()

        result = painter.generate(replace(job, prompt=todo.prompts[row][column], batch=1), on_step)
        # Each image repeats a wrong tag's message, at another position: show it once, without it.
        messages.update(dict.fromkeys(map(_without_position, result.messages)))
        if cancelled.is_set():
            messages[f"interrupted after {number - 1} of {len(cells)} images"] = None
            break
        for place in todo.same_as(row, column):
            made[place] = result.pictures[0]
        note = where + _left(began, number * job.steps, total)
        tell(Update(number * job.steps, total, note, picture=result.pictures[0].image))

    if not made:
        return Compared(None, list(messages), 0, len(todo.cells))
    first = next(iter(made.values()))
    images = {place: picture.image for place, picture in made.items()}
    joined = Picture(sheet(todo, images, heading(job)), first.infotext)
    return Compared(joined, list(messages), len(made), len(todo.cells))


def _fitting_rows(painter: Painter, todo: Plan) -> tuple[Plan, list[str]]:
    """The plan without networks that the model can't use, and why it can't."""
    problems = {name: painter.problems(f"<hypernet:{name}:1>") for name in todo.networks}
    rows = [row for row, name in enumerate(todo.networks) if not problems[name]]
    told = [_without_position(line) for lines in problems.values() for line in lines]
    kept = Plan(
        tuple(todo.networks[row] for row in rows),
        todo.multipliers,
        tuple(todo.prompts[row] for row in rows),
    )
    return kept, told


def _without_position(message: str) -> str:
    """A message about a tag; where the tag is in a cell's own prompt tells the user nothing."""
    return re.sub(r" at character \d+(?=:)", "", message)


def _left(began: float, done: int, total: int) -> str:
    """How long the rest will take, once that can be said."""
    seconds = (time.monotonic() - began) / max(done, 1) * (total - done)
    return f" · {seconds:.0f} s left" if seconds >= 1 else ""


def heading(job: Generation) -> str:
    """The line above a sheet: the prompt, and the seed that all images share."""
    words = " ".join(parse(job.prompt)[0].split())
    return f"{words[:90]}{'…' if len(words) > 90 else ''}  (seed {job.seed}, {job.steps} steps)"


def sheet(todo: Plan, images: dict[tuple[int, int], Image], title: str = "") -> Image:
    """Join all images: multipliers above the columns, networks left of the rows; missing cells stay
    empty.

    After :data:`MOST_ACROSS` columns it goes on below, so that it can still be seen on a screen.
    """
    from PIL import Image, ImageDraw, ImageFont

    size = next(iter(images.values())).size
    factor = max(1.0, LEAST_EDGE / min(size))
    width, height = round(size[0] * factor), round(size[1] * factor)
    font = ImageFont.load_default(LABEL)
    left = min(max(round(font.getlength(name)) for name in todo.networks), 260) + 2 * GAP
    across = min(len(todo.multipliers), MOST_ACROSS)
    band = LABEL + 2 * GAP + len(todo.networks) * (height + GAP)
    bands = -(-len(todo.multipliers) // MOST_ACROSS)
    head = LABEL + 2 * GAP

    paper = Image.new("RGB", (left + across * (width + GAP), head + bands * band), "white")
    draw = ImageDraw.Draw(paper)
    draw.text((GAP, GAP), _fitting(title, font, paper.width - 2 * GAP), fill="#555", font=font)

    def corner(row: int, column: int) -> tuple[int, int]:
        down, along = divmod(column, MOST_ACROSS)
        top = head + down * band + LABEL + 2 * GAP
        return left + along * (width + GAP), top + row * (height + GAP)

    for column, value in enumerate(todo.multipliers):
        x, y = corner(0, column)
        label = _fitting(value, font, width)
        draw.text((x + width / 2, y - head / 2), label, fill="black", font=font, anchor="mm")
    for row, name in enumerate(todo.networks):
        for first in range(0, len(todo.multipliers), MOST_ACROSS):
            place = (GAP, corner(row, first)[1] + height / 2)
            draw.text(place, _fitting(name, font, left - GAP), fill="black", font=font, anchor="lm")
    for (row, column), image in images.items():
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        paper.paste(resized, corner(row, column))
    return paper


def _fitting(text: str, font: object, width: float) -> str:
    """The text, shortened with an ellipsis to a width in pixels."""
    length = font.getlength  # type: ignore[attr-defined]
    if length(text) <= width:
        return text
    while text and length(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
