"""Prompts of previews, in the syntax of kohya's prompt files: ``a cat --n dark --w 512 --d 7``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import TrainingDataError, TrainingSettingsError
from ..files.lines import lines_of

_FLAG = re.compile(r"\s--([a-z]+)\s+")
_IGNORED = {"fs": "flow shift", "g": "embedded guidance"}
"""Flags of kohya's for other models."""
MOST = 64
"""Prompts of one run."""


@dataclass(frozen=True)
class Preview:
    """One preview.

    Attributes:
        prompt, negative: as typed, tags included.
        width, height: in pixels; ``None`` for the images that are learned from.
        seed, steps: ``None`` for the run's own.
        cfg: classifier-free guidance scale; ``None`` for the model's own.
    """

    prompt: str
    negative: str = ""
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    steps: int | None = None
    cfg: float | None = None


def parse_preview(text: str) -> Preview:
    """Read a prompt with kohya's flags: ``--n`` negative prompt, ``--w`` width, ``--h`` height,
    ``--d`` seed, ``--s`` steps, ``--l`` CFG.

    Raises:
        TrainingSettingsError: an unknown flag, or a value that can't be used.
    """
    prompt, *rest = _FLAG.split(" " + text.strip())
    found = Preview(prompt.strip())
    for flag, value in zip(rest[::2], rest[1::2], strict=True):
        # Files that were written for other models should work as they are.
        if flag in _IGNORED:
            continue
        if flag not in _FIELDS:
            raise TrainingSettingsError(
                f'the preview "{text}": the flag --{flag} is unknown, use '
                f"{', '.join('--' + f for f in _FIELDS)}",
                setting="previews",
            )

        name, kind = _FIELDS[flag]
        try:
            found = replace(found, **{name: kind(value.strip())})
        except ValueError as error:
            raise TrainingSettingsError(
                f'the preview "{text}": --{flag} can\'t be {value.strip()!r}', setting="previews"
            ) from error
    return found


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError(text)
        return number

    return read


def _scale(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 100:
        raise ValueError(text)
    return number


_FIELDS: dict[str, tuple[str, Any]] = {
    "n": ("negative", str),
    "w": ("width", _whole(8, 8192)),
    "h": ("height", _whole(8, 8192)),
    "d": ("seed", _whole(0, 2**63 - 1)),
    "s": ("steps", _whole(1, 1000)),
    "l": ("cfg", _scale),
}


def read_prompts(path: Path) -> tuple[str, ...]:
    """The lines of a prompt file; empty ones and those that begin with ``#`` don't count.

    Raises:
        TrainingDataError: there is no such file, it is not text, or has no or too many prompts.
    """
    try:
        lines = lines_of(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingDataError(f"{path}: it can't be read as UTF-8 text ({error})") from error
    found = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not 1 <= len(found) <= MOST:
        raise TrainingDataError(f"{path} has {len(found)} prompts: use 1 to {MOST}")
    return found
