"""Axes of the host's X/Y/Z plot: network, multiplier and schedule.

They change the tags in a job's prompt as text, so that the infotext of each image says what was
done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...engine.multiplier import Schedule, format_number, parse_number
from ...prompts import Tag, parse
from ...prompts.rewriting import add_tag, rewrite_tags
from . import folders, host, settings

NAME, MULTIPLIER, SCHEDULE = "[Hypernet] Name", "[Hypernet] Multiplier", "[Hypernet] Schedule"
"""Labels of the axes."""
_CELL = "_hypernetworks_cell"
_OTHER_PROMPTS = ("hr_prompt", "refiner_prompt")
"""Prompts of later passes; empty ones stand for the first prompt."""
_NONE = ("", "none")


@dataclass(frozen=True)
class Cell:
    """What the axes have asked for so far in one image of the grid; lets them come in any order.

    Attributes:
        multiplier: from its axis.
        schedule: from its axis; where both axes are used, the multiplier scales it.
    """

    multiplier: float | None = None
    schedule: Schedule | None = None

    @property
    def text(self) -> str | None:
        """The value of each tag part; ``None`` if no axis sets it."""
        if self.schedule is None:
            return None if self.multiplier is None else format_number(self.multiplier)
        factor = 1.0 if self.multiplier is None else self.multiplier
        points = tuple(
            (round(value * factor, 6), position) for value, position in self.schedule.points
        )
        return str(Schedule(points, self.schedule.in_steps))


def register() -> None:
    """Callback ``on_before_ui``: add the axes to each X/Y/Z script that is loaded; any number of
    times.
    """
    from modules import scripts

    # Several copies of the script may be loaded, by other extensions for example.
    for module in {id(script.module): script.module for script in scripts.scripts_data}.values():
        options, axis = getattr(module, "axis_options", None), getattr(module, "AxisOption", None)
        if isinstance(options, list) and axis is not None:
            ours = axes(axis)
            options[:] = [
                option for option in options if option.label not in {o.label for o in ours}
            ] + ours


def axes(axis: Callable[..., Any]) -> list[Any]:
    """The three axes.

    Args:
        axis: the script's class ``AxisOption``, called as all hosts allow.
    """
    return [
        # the axis with the highest cost changes least often: each file is read once, however small
        # the cache is
        axis(
            NAME,
            str,
            apply_name,
            confirm=confirm_names,
            choices=lambda: ["None", *folders.host_list()],
            cost=0.5,
        ),
        axis(MULTIPLIER, float, apply_multiplier, confirm=confirm_multipliers),
        axis(SCHEDULE, str, apply_schedule, confirm=confirm_schedules),
    ]


def confirm_names(_p: Any, names: Sequence[str]) -> None:
    """Refuse unknown and ambiguous names before the first image is made.

    The files' hashes are begun, for infotexts.

    Raises:
        NameLookupError: says which name, and the nearest ones.
    """
    for name in names:
        if name.strip().lower() not in _NONE:
            folders.start_hash(folders.library().find(name))


def confirm_multipliers(_p: Any, values: Sequence[float]) -> None:
    """Refuse what is not finite.

    Raises:
        MultiplierError: says which value.
    """
    for value in values:
        parse_number(str(value))


def confirm_schedules(_p: Any, texts: Sequence[str]) -> None:
    """Refuse what is no schedule.

    Raises:
        MultiplierError: says which part can't be understood.
    """
    for text in texts:
        if text.strip().lower() not in _NONE:
            Schedule.parse(text)


def apply_name(p: Any, name: str, _names: Sequence[str]) -> None:
    """The prompt's first tag names this network; a prompt without tags gets one; "None" takes the
    first tag out.
    """
    removed = name.strip().lower() in _NONE
    strength = _cell(p).text or format_number(settings.default_multiplier())

    def change(prompt: str, *, later_pass: bool) -> str:
        first = next(iter(parse(prompt)[1]), None)
        if first is None:
            return prompt if removed or later_pass else add_tag(prompt, Tag((name, strength)))

        def rename(tag: Tag) -> Tag | None:
            return tag if tag.start != first.start else None if removed else tag.with_name(name)

        return rewrite_tags(prompt, rename)

    _change_prompts(p, change)


def apply_multiplier(p: Any, value: float, _values: Sequence[float]) -> None:
    """Every tag has this multiplier; named arguments such as ``hr`` stay."""
    _write(p, replace(_cell(p), multiplier=value))


def apply_schedule(p: Any, text: str, _texts: Sequence[str]) -> None:
    """Every tag has this schedule; "none" leaves them as they are."""
    _write(
        p,
        replace(_cell(p), schedule=None if text.strip().lower() in _NONE else Schedule.parse(text)),
    )


def _cell(p: Any) -> Cell:
    """Kept on the job, which the host copies for each image of the grid."""
    cell = getattr(p, _CELL, None)
    return cell if isinstance(cell, Cell) else Cell()


def _write(p: Any, cell: Cell) -> None:
    setattr(p, _CELL, cell)
    text = cell.text
    if text is not None:
        _change_prompts(
            p, lambda prompt, **_: rewrite_tags(prompt, lambda tag: tag.with_multiplier(text))
        )


def _live(prompt: str) -> str:
    bare = host.without_comments(prompt)
    is_in_one = len(parse(bare)[1]) != len(parse(prompt)[1])
    ends_in_one = host.without_comments(f"{prompt}.")[-1:] != "."
    return bare if is_in_one or ends_in_one else prompt


def _change_prompts(p: Any, change: Callable[..., str]) -> None:
    """Change the prompt, and those of later passes; in an image of a grid, comments go where a tag
    would be changed in one, or added to one, which has no effect.
    """
    for attribute in ("prompt", *_OTHER_PROMPTS):
        prompt, later_pass = getattr(p, attribute, None), attribute in _OTHER_PROMPTS
        if isinstance(prompt, str):
            setattr(p, attribute, change(_live(prompt), later_pass=later_pass))
        elif isinstance(prompt, list):
            setattr(p, attribute, [change(_live(one), later_pass=later_pass) for one in prompt])
    if getattr(p, "all_prompts", None) is not None:
        p.all_prompts = None  # SD.Next would continue with the prompts of the image before
