"""How strong a network is: at which step, in which block, for keys and for values.

Plain numbers, no torch.

The text form is the tail of a tag (everything after the name), see :mod:`hypernetworks.prompts`::

    multiplier ::= [ schedule ] { ":" key "=" value }
    schedule   ::= number | pair { ("," | ";") pair }
    pair       ::= number "@" number
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import MultiplierError
from .blocks import (
    BLOCK_COUNTS,
    BLOCK_PRESETS,
    BLOCKS_SD1,
    BLOCKS_SDXL,
    block_factors,
    numbers_of,
    parse_blocks,
)
from .schedules import Schedule, format_number, parse_number, position_of

__all__ = [
    "BLOCKS_SD1",
    "BLOCKS_SDXL",
    "BLOCK_PRESETS",
    "CROSS",
    "SELF",
    "Multiplier",
    "Schedule",
    "format_number",
    "parse_number",
]

CROSS, SELF = "cross", "self"
"""The kinds of attention: to the text, and of a feature map to itself."""
ATTENTION_KINDS = ("both", CROSS, SELF)


@dataclass(frozen=True)
class Multiplier:
    """How strong a network is in a generation: over steps, blocks, keys and values.

    Attributes:
        strength: the schedule over the steps of the pass.
        hires: the schedule of the hires pass; ``None`` for the same as ``strength``.
        start, stop: the network is active between these positions, both included; ``None`` for no
            limit.
        window_in_steps: whether ``start`` and ``stop`` are steps, not fractions of the pass.
        key, value: extra factors for ``context_k`` and ``context_v``.
        attention: ``"both"``, ``"cross"`` or ``"self"``.
        blocks: a name of :data:`BLOCK_PRESETS`, factors per UNet block, or ``None``; see
            :meth:`block_factors`.
    """

    strength: Schedule = field(default_factory=lambda: Schedule.constant(1.0))
    hires: Schedule | None = None
    start: float | None = None
    stop: float | None = None
    window_in_steps: bool = False
    key: float = 1.0
    value: float = 1.0
    attention: str = "both"
    blocks: str | tuple[float, ...] | None = None

    @classmethod
    def of(cls, multiplier: float | str | Schedule | Multiplier) -> Multiplier:
        """Convert a number, a text or a schedule to a multiplier.

        Raises:
            MultiplierError: it can't be converted.
        """
        if isinstance(multiplier, Multiplier):
            return multiplier
        if isinstance(multiplier, Schedule):
            return cls(multiplier)
        if isinstance(multiplier, str):
            return cls.parse(multiplier)

        try:
            return cls(Schedule.constant(parse_number(str(float(multiplier)))))
        except OverflowError:
            raise MultiplierError(
                "the multiplier is beyond the range of a float: write a number such as 0.7"
            ) from None
        except (TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, MultiplierError):
                raise
            raise MultiplierError(
                f"{repr(multiplier)[:60]} is not a multiplier: write a number such as 0.7, a text "
                'such as "0@0,1@0.5", or a Multiplier'
            ) from error

    @classmethod
    def parse(cls, text: str) -> Multiplier:
        """Parse what follows the name in a tag: ``"0.8:start=0.2:hr=0.4"``.

        Raises:
            MultiplierError: the message names the wrong item and what would be right.
        """
        return cls.from_items(text.split(":"))

    @classmethod
    def from_items(cls, items: Sequence[str]) -> Multiplier:
        """Parse the items between the colons; items with ``=`` are named arguments.

        A second number is ignored, as in AUTOMATIC1111. A preset or a list of numbers in its place
        is read as ``lbw``, because older versions of LoRA block weight wrote it that way.
        """
        positional = [item for item in items if "=" not in item]
        strength = Schedule.parse(positional[0]) if positional else Schedule.constant(1.0)
        values = _named(items)
        for item in positional[1:]:
            _read_positional(item.strip(), values)

        # A tag that could never be active is a mistake, so it is an error.
        start, stop, in_steps = _window(values, strength)
        hires = Schedule.parse(values["hr"], "argument hr") if "hr" in values else None
        _check_window(start, stop, in_steps, [strength, *([hires] if hires else [])])

        return cls(
            strength=strength,
            hires=hires,
            start=start,
            stop=stop,
            window_in_steps=in_steps,
            key=parse_number(values.get("k", "1"), "argument k"),
            value=parse_number(values.get("v", "1"), "argument v"),
            attention=_attention(values.get("attn", "both")),
            blocks=parse_blocks(values["lbw"]) if "lbw" in values else None,
        )

    @property
    def is_constant(self) -> bool:
        """Whether every step of every pass has the same value."""
        same_hires = self.hires is None or (
            self.hires.is_constant and self.hires.at(0, 1) == self.strength.at(0, 1)
        )
        return self.strength.is_constant and same_hires and self.start is None and self.stop is None

    @property
    def is_zero(self) -> bool:
        """Whether the network never has an effect."""
        values = [v for s in (self.strength, self.hires) if s is not None for v, _ in s.points]
        return (
            not any(values)
            or not (self.key or self.value)
            or (self.blocks is not None and not any(numbers_of(self.blocks)))
        )

    def at(self, step: int, total: int, *, hires: bool = False) -> float:
        """The multiplier at ``step`` of ``total``, counted from 0, without the other factors."""
        position = position_of(step, total, self.window_in_steps)
        if self.start is not None and position < self.start:
            return 0.0
        if self.stop is not None and position > self.stop:
            return 0.0
        schedule = self.hires if hires and self.hires is not None else self.strength
        return schedule.at(step, total)

    def block_factors(self, names: Sequence[str]) -> dict[str, float]:
        """Factors by block name, for a UNet that has some or all blocks of SD1 or SDXL.

        A list of numbers is for all blocks of SD1 or SDXL. If a distilled UNet lacks some of them,
        their numbers are unused.

        Raises:
            TagError: there are more or fewer numbers than blocks, or the blocks have other names.
        """
        if self.blocks is None or self.blocks == "ALL":
            return dict.fromkeys(names, 1.0)

        return block_factors(self.blocks, names)

    def __str__(self) -> str:
        items = [str(self.strength)]
        for key, argument, default in (
            ("hr", self.hires, None),
            ("start", self.start, None),
            ("stop", self.stop, None),
            ("k", self.key, 1.0),
            ("v", self.value, 1.0),
        ):
            if argument != default:
                text = argument if isinstance(argument, Schedule) else format_number(argument or 0)
                items.append(f"{key}={text}")

        if self.attention != "both":
            items.append(f"attn={self.attention}")
        if self.blocks is not None:
            blocks = self.blocks
            spelled = blocks if isinstance(blocks, str) else ",".join(map(format_number, blocks))
            items.append(f"lbw={spelled}")

        return ":".join(items)


_ARGUMENTS = ("start", "stop", "hr", "k", "v", "attn", "lbw")


def _named(items: Sequence[str]) -> dict[str, str]:
    """The named arguments."""
    values: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals:
            continue
        if key not in _ARGUMENTS:
            raise MultiplierError(f'unknown argument "{key}": known are {", ".join(_ARGUMENTS)}')
        if key in values:
            raise MultiplierError(f'the argument "{key}" is given twice')
        values[key] = value.strip()
    return values


def _read_positional(item: str, values: dict[str, str]) -> None:
    """Parse an unnamed item after the multiplier: block factors, or a number, which is ignored."""
    if item.upper() in BLOCK_PRESETS or len(re.split("[,;]", item)) in BLOCK_COUNTS:
        if "lbw" in values:
            raise MultiplierError(
                f'"{item}" and lbw= are both block factors: leave one of them out'
            )
        values["lbw"] = item
        return

    try:
        parse_number(item)
    except MultiplierError:
        shown = item if len(item) <= 60 else f"{item[:60]}…"
        raise MultiplierError(
            f'"{shown}" after the multiplier has no name: write '
            f"{', '.join(f'{name}=' for name in _ARGUMENTS[:-1])} or lbw= before it"
        ) from None


def _window(
    values: Mapping[str, str], strength: Schedule
) -> tuple[float | None, float | None, bool]:
    """``start``, ``stop``, and whether they are steps; the schedule's unit, if any, decides."""
    start, stop = (
        parse_number(values[k], f"argument {k}") if k in values else None for k in ("start", "stop")
    )
    for name, position in (("start", start), ("stop", stop)):
        if position is not None and position < 0:
            raise MultiplierError(f"{name}={values[name]} is negative, positions start at 0")

    # Without a schedule, the same rule as for its positions: above 1, they are steps.
    largest = max(start or 0.0, stop or 0.0)
    if len(strength.points) == 1:
        return start, stop, largest > 1
    if largest > 1 and not strength.in_steps:
        raise MultiplierError(
            f'start and stop are steps, but the schedule "{strength}" is in fractions of the '
            "pass: use one of the two"
        )
    if strength.in_steps and any(0 < position < 1 for position in (start, stop) if position):
        raise MultiplierError(
            f'start and stop are fractions of the pass, but the schedule "{strength}" is in '
            "steps: use one of the two"
        )

    return start, stop, strength.in_steps


def _check_window(
    start: float | None, stop: float | None, in_steps: bool, schedules: Sequence[Schedule]
) -> None:
    """Refuse a window in which the multiplier is 0 everywhere."""
    if start is not None and stop is not None and start > stop:
        raise MultiplierError(
            f"start={format_number(start)} is after stop={format_number(stop)}, so the network "
            "would never be active: exchange the two"
        )
    if (start is None and stop is None) or not any(value for value, _ in schedules[0].points):
        return  # a strength of 0 is intended: it switches the network off

    in_other_units = any(len(s.points) > 1 and s.in_steps != in_steps for s in schedules)
    if not in_other_units and not any(s.acts_between(start, stop) for s in schedules):
        raise MultiplierError(
            "the schedule is 0 everywhere between start and stop, so the network would never "
            "act: widen one of them"
        )


def _attention(text: str) -> str:
    if text not in ATTENTION_KINDS:
        raise MultiplierError(f'attn="{text}" is unknown: write attn=cross or attn=self')
    return text
