"""How far a training is, and what a run's folder says of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from ...training import TrainingStep
from ...training.checkpoints import STATE
from ...training.records import read_log

if TYPE_CHECKING:
    from PIL.Image import Image

EDGE = 192
"""Previews are kept in memory no larger than this, in pixels."""


@dataclass
class State:
    """How far the training is that runs, or that ran last. Written by its own thread, read by all.

    Attributes:
        rows: every step since it was begun or continued.
        previews: step, and a picture for each prompt.
        messages: what to tell at the end.
        kept_as: name in the library, once it is there.
        number: no other training of this studio has it.
    """

    name: str = ""
    note: str = ""
    done: int = 0
    total: int = 0
    rows: list[TrainingStep] = field(default_factory=list)
    previews: list[tuple[int, list[Image]]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    is_wrong: bool = False
    is_running: bool = False
    kept_as: str | None = None
    number: int = field(default_factory=count().__next__)

    def describe(self) -> str:
        """For those who wait for it."""
        left = f", about {duration(self.rows[-1].seconds_left)} left" if self.rows else ""
        return (
            f'the training of "{self.name}" (step {self.done} of {self.total}{left}; Interrupt '
            "is in the Train tab)"
        )


def small(picture: Image) -> Image:
    """A preview at the size in which it is kept in memory."""
    shrunk = picture.convert("RGB")
    shrunk.thumbnail((EDGE, EDGE))
    return shrunk


def earlier(folder: Path, steps: int) -> tuple[list[TrainingStep], list[tuple[int, list[Image]]]]:
    """Steps and previews of a run that is continued, from its folder.

    Args:
        steps: of the whole run, as its rows shall say.
    """
    if not (folder / STATE).exists():
        return [], []
    return rows_of(folder, steps), previews_of(folder)


def rows_of(folder: Path, steps: int) -> list[TrainingStep]:
    """The steps that a run's log has."""
    return [
        TrainingStep(
            row["step"],
            steps,
            row["loss"] or 0.0,
            row["smoothed"] or 0.0,
            row["rate"] or 0.0,
            row["gradient_norm"] or 0.0,
            row["validation"],
            seconds=row["seconds"] or 0.0,
        )
        for row in read_log(folder / "log.csv")
    ]


def previews_of(folder: Path) -> list[tuple[int, list[Image]]]:
    """The preview images of a run by their step, rising; one that can't be read is left out."""
    from PIL import Image as Pictures

    found: dict[int, list[Image]] = {}
    for path in sorted((folder / "previews").glob("*-*.png")):
        step = path.stem.rpartition("-")[2]
        # The trainer may be another process, which is writing this file or has just removed it.
        with suppress(OSError, SyntaxError):
            if step.isdigit():
                with Pictures.open(path, formats=["PNG"]) as picture:
                    found.setdefault(int(step), []).append(small(picture))
    return sorted(found.items(), key=lambda shown: shown[0])


def duration(seconds: float) -> str:
    """Such as 40 s, 12 min or 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
