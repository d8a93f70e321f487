"""One seed, many settings: a sheet of images over multipliers, networks, or both."""

from __future__ import annotations

import re
import threading
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
        """TrainingFolders in the order of the work: row by row, so that each network's file is read
        once.
        """
        return [
            (row, column)
            for row in range(len(self.networks))
            for column in range(len(self.multipliers))
        ]


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


def compare(
    painter: Painter,
    job: Generation,
    todo: Plan,
    tell: Callable[[Update], None],
    cancelled: threading.Event,
) -> tuple[Picture | None, list[str]]:
    """Generate a sheet's images and join them; when cancelled, the sheet holds those that are
    finished.

    Returns:
        The sheet, with the infotext of its first picture (``None`` if there is none), and what to
        tell.
    """
    made: dict[tuple[int, int], Picture] = {}
    messages: dict[str, None] = {}
    for number, (row, column) in enumerate(todo.cells, 1):
        done, total = (number - 1) * job.steps, len(todo.cells) * job.steps
        where = f"Image {number} of {len(todo.cells)}: {todo.networks[row]} at {todo.multipliers[column]}"

        def on_step(
            step: int, _steps: int, done: int = done, total: int = total, where: str = where
        ) -> bool:
            tell(Update(done + min(step, job.steps), total, where))
            return not cancelled.is_set()

        result = painter.generate(replace(job, prompt=todo.prompts[row][column], batch=1), on_step)
        # Each image repeats a wrong tag's message, at another position: show it once, without it.
        messages.update(
            dict.fromkeys(re.sub(r" at character \d+(?=:)", "", said) for said in result.messages)
        )
        if cancelled.is_set():
            messages[f"interrupted after {number - 1} of {len(todo.cells)} images"] = None
            break
        made[row, column] = result.pictures[0]
        tell(Update(number * job.steps, total, where, picture=result.pictures[0].image))
    if not made:
        return None, list(messages)
    first = next(iter(made.values()))
    images = {place: picture.image for place, picture in made.items()}
    return Picture(sheet(todo, images, heading(job)), first.infotext), list(messages)


def heading(job: Generation) -> str:
    """The line above a sheet: the prompt, and the seed that all images share."""
    words = " ".join(parse(job.prompt)[0].split())
    return f"{words[:90]}{'…' if len(words) > 90 else ''}  (seed {job.seed}, {job.steps} steps)"


def sheet(todo: Plan, images: dict[tuple[int, int], Image], title: str = "") -> Image:
    """Join all images: multipliers above the columns, networks left of the rows; missing cells stay
    empty.
    """
    from PIL import Image, ImageDraw, ImageFont

    size = next(iter(images.values())).size
    factor = max(1.0, LEAST_EDGE / min(size))
    width, height = round(size[0] * factor), round(size[1] * factor)
    font = ImageFont.load_default(LABEL)
    left = min(max(round(font.getlength(name)) for name in todo.networks), 260) + 2 * GAP
    top = 2 * (LABEL + 2 * GAP)
    columns, rows = len(todo.multipliers), len(todo.networks)
    paper = Image.new("RGB", (left + columns * (width + GAP), top + rows * (height + GAP)), "white")
    draw = ImageDraw.Draw(paper)
    draw.text((GAP, GAP), _fitting(title, font, paper.width - 2 * GAP), fill="#555", font=font)
    for column, value in enumerate(todo.multipliers):
        middle = left + column * (width + GAP) + width / 2
        draw.text(
            (middle, top * 0.75), _fitting(value, font, width), fill="black", font=font, anchor="mm"
        )
    for row, name in enumerate(todo.networks):
        place = (GAP, top + row * (height + GAP) + height / 2)
        draw.text(place, _fitting(name, font, left - GAP), fill="black", font=font, anchor="lm")
    for (row, column), image in images.items():
        corner = (left + column * (width + GAP), top + row * (height + GAP))
        paper.paste(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC), corner)
    return paper


def _fitting(text: str, font: object, width: float) -> str:
    """The text, shortened with an ellipsis to a width in pixels."""
    length = font.getlength  # type: ignore[attr-defined]
    if length(text) <= width:
        return text
    while text and length(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
