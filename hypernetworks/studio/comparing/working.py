"""Generates the images of a sheet, one by one."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...hosts.diffusers import Generation, Picture
from ...patching import find_sites
from ..job_queue import Update
from .planning import Cell, Plan, without_values

if TYPE_CHECKING:
    from ...hosts.diffusers import Painter


@dataclass(frozen=True)
class Compared:
    """What came of a comparison.

    Attributes:
        plan: what was made, without networks that don't fit the model.
        pictures: by cell; fewer than the plan has where it was interrupted.
    """

    plan: Plan | None
    pictures: dict[Cell, Picture]
    messages: list[str]


def summary(compared: Compared) -> str:
    """How many images a sheet has, and of how many where some are missing."""
    made = len(compared.pictures)
    wanted = made if compared.plan is None else len(compared.plan.jobs)
    count = "1 image" if made == 1 else f"{made} images"
    return f"{count}{'' if made == wanted else f' of {wanted}'} on one sheet"


def model_blocks(painter: Painter) -> list[str]:
    """Blocks of the model that have attention, in the order of a pass."""
    found = dict.fromkeys(site.block for site in find_sites(painter.pipeline.unet))
    kinds = ("IN", "MID", "OUT")
    names = [name for name in found if name is not None]
    return sorted(names, key=lambda name: (kinds.index(name.rstrip("0123456789")), name))


def compare(
    painter: Painter,
    job: Generation,
    todo: Plan,
    tell: Callable[[Update], None],
    cancelled: threading.Event,
    on_plan: Callable[[Plan], object] = lambda _: None,
    on_cells: Callable[[Sequence[Cell], Picture], object] = lambda _cells, _picture: None,
    share: tuple[int, int] = (0, 1),
) -> Compared:
    """Generate a sheet's images; when cancelled, keep those that are finished.

    A network that doesn't fit the model is left out; equal images are generated once.

    Args:
        job: that the plan was made from.
        on_plan: called with what will be made.
        on_cells: called with each image and the cells that show it.
        share: number of this process among several, and how many they are.
    """
    fitting, left_out = _fitting(painter, job, todo)
    messages = dict.fromkeys(left_out)
    if fitting is None:
        return Compared(None, {}, list(messages))
    on_plan(fitting)

    # Every second image to the second process, and so on: neighbours take equally long.
    groups = fitting.groups()[share[0] :: share[1]]
    total = sum(fitting.jobs[cells[0]].steps for cells in groups)
    began, before = time.monotonic(), 0
    made: dict[Cell, Picture] = {}

    for number, cells in enumerate(groups, 1):
        one = fitting.jobs[cells[0]]
        where = f"Image {number} of {len(groups)}: {fitting.label(cells[0])}"

        def on_step(
            step: int,
            _of: int,
            before: int = before,
            steps: int = one.steps,
            where: str = where,
        ) -> bool:
            done = before + min(step, steps)
            tell(Update(done, total, where + _left(began, done, total)))
            return not cancelled.is_set()

        result = painter.generate(one, on_step)
        # Each image repeats a wrong tag's message, at another position: show it once, without it.
        messages.update(dict.fromkeys(map(_without_position, result.messages)))
        if cancelled.is_set():
            messages[f"interrupted after {number - 1} of {len(groups)} images"] = None
            break

        made.update(dict.fromkeys(cells, result.pictures[0]))
        on_cells(cells, result.pictures[0])
        before += one.steps
        tell(Update(before, total, where + _left(began, before, total)))

    return Compared(fitting, made, list(messages))


def _fitting(painter: Painter, job: Generation, todo: Plan) -> tuple[Plan | None, list[str]]:
    """The plan without networks that the model can't use, and why it can't."""
    # Asked before the first image: a sheet of an hour must not end in a message about its last row.
    problems = {name: painter.problems(f"<hypernet:{name}:1>") for name in sorted(todo.names)}
    told = [_without_position(line) for lines in problems.values() for line in lines]
    left_out = frozenset(name for name, lines in problems.items() if lines)
    return (without_values(todo, job, left_out) if left_out else todo), told


def _without_position(message: str) -> str:
    """A message about a tag; where the tag is in a cell's own prompt tells the user nothing."""
    return re.sub(r" at character \d+(?=:)", "", message)


def _left(began: float, done: int, total: int) -> str:
    """How long the rest will take, once that can be said."""
    seconds = (time.monotonic() - began) / max(done, 1) * (total - done)
    return f" · {seconds:.0f} s left" if seconds >= 1 else ""
