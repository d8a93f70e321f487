"""How strong a network is: at which step, in which block, for keys and for values. Plain numbers, no torch.

The text form is the tail of a tag (everything after the name), see :mod:`hypernetworks.prompts`::

    multiplier ::= [ schedule ] { ":" key "=" value }
    schedule   ::= number | pair { ("," | ";") pair }
    pair       ::= number "@" number
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import MultiplierError, TagError

BLOCKS_SD1: tuple[str, ...] = (
    *("IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "MID"),
    *(f"OUT{i:02d}" for i in range(3, 12)),
)
"""Blocks of an SD1 or SD2 UNet that have attention, in the order of the ``lbw`` numbers."""
BLOCKS_SDXL: tuple[str, ...] = (
    "IN04",
    "IN05",
    "IN07",
    "IN08",
    "MID",
    *(f"OUT{i:02d}" for i in range(6)),
)
"""The same for SDXL."""
BLOCK_PRESETS: Mapping[str, tuple[float, ...]] = {
    name: tuple(float(digit) for digit in digits)
    for name, digits in {
        "NONE": "0000000000000000",
        "ALL": "1111111111111111",
        "INS": "1110000000000000",
        "IND": "0001110000000000",
        "INALL": "1111110000000000",
        "MIDD": "0001111111100000",
        "OUTD": "0000000111100000",
        "OUTS": "0000000000011111",
        "OUTALL": "0000000111111111",
    }.items()
}
"""lora-block-weight's presets for SD1, without their first number (BASE, the text encoder)."""
ATTENTION_KINDS = ("both", "cross", "self")


def parse_number(text: str, what: str = "multiplier") -> float:
    """A finite number as Python's ``float`` reads it.

    Raises:
        MultiplierError: not a number, or not a finite one.
    """
    try:
        number = float(text)
    except ValueError:
        hint = (
            f', write "{text.replace(",", ".")}"'
            if re.fullmatch(r"\s*[-+]?\d*,\d+\s*", text)
            else ""
        )
        raise MultiplierError(
            f'the {what} "{text}" is not a number{hint or ", write one such as 0.7"}'
        ) from None
    if not math.isfinite(number):
        raise MultiplierError(f'the {what} "{text}" is not a finite number, write one such as 0.7')
    return number


def format_number(number: float) -> str:
    """The shortest text that :func:`parse_number` reads back as the same number: ``0.7``, ``1``, ``-0.25``."""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(float(number))


@dataclass(frozen=True)
class Schedule:
    """A piecewise linear multiplier over the steps of one pass.

    Attributes:
        points: ``(value, position)`` pairs by rising position; one pair is a constant.
        in_steps: positions are steps counted from 0; otherwise fractions of the pass in [0, 1].
    """

    points: tuple[tuple[float, float], ...]
    in_steps: bool = False

    @classmethod
    def constant(cls, value: float) -> Schedule:
        """The same value at every step."""
        return cls(((float(value), 0.0),))

    @classmethod
    def parse(cls, text: str, what: str = "multiplier") -> Schedule:
        """Read ``"0.7"`` or ``"0@0,1@0.5"``.

        Raises:
            MultiplierError: the text is neither a finite number nor a list of value@position pairs.
        """
        if "@" not in text:
            return cls.constant(parse_number(text, what))
        points = []
        for pair in re.split("[,;]", text):
            value, at, position = pair.partition("@")
            if not at:
                raise MultiplierError(
                    f'"{pair.strip()}" in the schedule "{text}" has no position, write value@position such as 1@0.5'
                )
            points.append((parse_number(value, "value"), parse_number(position, "position")))
            if points[-1][1] < 0:
                raise MultiplierError(
                    f'the position "{position}" in "{text}" is negative, positions start at 0'
                )
        points.sort(key=lambda point: point[1])
        return cls(tuple(points), in_steps=points[-1][1] > 1)

    @property
    def is_constant(self) -> bool:
        """Whether every step has the same value."""
        return len({value for value, _ in self.points}) == 1

    def at(self, step: int, total: int) -> float:
        """The value at ``step`` of ``total`` (0-based): linear between points, held at both ends."""
        position = _position(step, total, self.in_steps)
        before = None
        for value, here in self.points:
            if here > position:
                if before is None:
                    return value
                share = (position - before[1]) / (here - before[1])
                return before[0] + share * (value - before[0])
            before = (value, here)
        return self.points[-1][0]

    def __str__(self) -> str:
        if len(self.points) == 1:
            return format_number(self.points[0][0])
        return ",".join(f"{format_number(v)}@{format_number(p)}" for v, p in self.points)


def _position(step: int, total: int, in_steps: bool) -> float:
    if in_steps:
        return float(step)
    return step / (total - 1) if total > 1 else 0.0


@dataclass(frozen=True)
class Multiplier:
    """How strong one network is, everywhere in one generation.

    Attributes:
        strength: over the steps of the pass.
        hires: the same for the hires pass; ``None`` means as in ``strength``.
        start, stop: only between these positions, ends included; ``None`` means no limit.
        window_in_steps: ``start`` and ``stop`` are steps; otherwise fractions of the pass.
        key, value: extra factors for ``context_k`` and ``context_v``.
        attention: ``"both"``, ``"cross"`` or ``"self"``.
        blocks: factors per UNet block, or ``None``; see :meth:`block_factors`.
    """

    strength: Schedule = field(default_factory=lambda: Schedule.constant(1.0))
    hires: Schedule | None = None
    start: float | None = None
    stop: float | None = None
    window_in_steps: bool = False
    key: float = 1.0
    value: float = 1.0
    attention: str = "both"
    blocks: tuple[float, ...] | None = None

    @classmethod
    def of(cls, multiplier: float | str | Schedule | Multiplier) -> Multiplier:
        """Turn anything that stands for a multiplier into one.

        Raises:
            MultiplierError: a text or number that isn't one.
        """
        if isinstance(multiplier, Multiplier):
            return multiplier
        if isinstance(multiplier, Schedule):
            return cls(multiplier)
        if isinstance(multiplier, str):
            return cls.parse(multiplier)
        return cls(Schedule.constant(parse_number(str(float(multiplier)))))

    @classmethod
    def parse(cls, text: str) -> Multiplier:
        """Read the tail of a tag: ``"0.8:start=0.2:hr=0.4"``.

        Raises:
            MultiplierError: naming the part that can't be understood and what would be right.
        """
        return cls.from_items(text.split(":"))

    @classmethod
    def from_items(cls, items: Sequence[str]) -> Multiplier:
        """The same from the items between the colons; a first item with ``=`` in it is a named argument.

        Values after the first are ignored unless they are named, as AUTOMATIC1111 does.
        """
        positional = [item for item in items if "=" not in item]
        strength = Schedule.parse(positional[0]) if positional else Schedule.constant(1.0)
        values: dict[str, str] = {}
        for item in items:
            key, equals, value = item.partition("=")
            key = key.strip()
            if not equals:
                continue
            if key not in _ARGUMENTS:
                raise MultiplierError(
                    f'unknown argument "{key}", known are {", ".join(_ARGUMENTS)}'
                )
            if key in values:
                raise MultiplierError(f'the argument "{key}" is given twice')
            values[key] = value.strip()
        start, stop, in_steps = _window(values, strength)
        return cls(
            strength=strength,
            hires=Schedule.parse(values["hr"], "argument hr") if "hr" in values else None,
            start=start,
            stop=stop,
            window_in_steps=in_steps,
            key=parse_number(values.get("k", "1"), "argument k"),
            value=parse_number(values.get("v", "1"), "argument v"),
            attention=_attention(values.get("attn", "both")),
            blocks=_blocks(values["lbw"]) if "lbw" in values else None,
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
            or (self.blocks is not None and not any(self.blocks))
        )

    def at(self, step: int, total: int, *, hires: bool = False) -> float:
        """The multiplier at ``step`` of ``total`` (0-based), before block, key and value factors."""
        position = _position(step, total, self.window_in_steps)
        if self.start is not None and position < self.start:
            return 0.0
        if self.stop is not None and position > self.stop:
            return 0.0
        schedule = self.hires if hires and self.hires is not None else self.strength
        return schedule.at(step, total)

    def block_factors(self, names: Sequence[str]) -> dict[str, float]:
        """Factors by block name for a UNet with these block names (those of SD1 or of SDXL).

        Raises:
            TagError: there are more or fewer numbers than blocks, or the blocks have no such names.
        """
        if self.blocks is None:
            return dict.fromkeys(names, 1.0)
        known = next((b for b in (BLOCKS_SD1, BLOCKS_SDXL) if set(b) == set(names)), None)
        if known is None:
            raise TagError(
                "lbw needs the blocks of an SD1, SD2 or SDXL UNet, and this model has others: leave it out"
            )
        factors = self.blocks[1:] if len(self.blocks) == len(known) + 1 else self.blocks
        if len(factors) != len(known):
            raise TagError(
                f"lbw has {len(self.blocks)} numbers, but this model has {len(known)} blocks: "
                f"write {len(known)} numbers, or {len(known) + 1} with BASE first"
            )
        return dict(zip(known, factors, strict=True))

    def __str__(self) -> str:
        parts = [str(self.strength)]
        for key, argument, default in (
            ("hr", self.hires, None),
            ("start", self.start, None),
            ("stop", self.stop, None),
            ("k", self.key, 1.0),
            ("v", self.value, 1.0),
        ):
            if argument != default:
                parts.append(
                    f"{key}={argument if isinstance(argument, Schedule) else format_number(argument or 0.0)}"
                )
        if self.attention != "both":
            parts.append(f"attn={self.attention}")
        if self.blocks is not None:
            preset = next(
                (name for name, factors in BLOCK_PRESETS.items() if factors == self.blocks), None
            )
            parts.append(f"lbw={preset or ','.join(map(format_number, self.blocks))}")
        return ":".join(parts)


_ARGUMENTS = ("start", "stop", "hr", "k", "v", "attn", "lbw")


def _window(
    values: Mapping[str, str], strength: Schedule
) -> tuple[float | None, float | None, bool]:
    """``start``, ``stop`` and whether they are steps; they share the units of the schedule where it has positions."""
    start, stop = (
        parse_number(values[k], f"argument {k}") if k in values else None for k in ("start", "stop")
    )
    for name, position in (("start", start), ("stop", stop)):
        if position is not None and position < 0:
            raise MultiplierError(f"{name}={values[name]} is negative, positions start at 0")
    largest = max(start or 0.0, stop or 0.0)
    if len(strength.points) == 1:
        return start, stop, largest > 1
    if largest > 1 and not strength.in_steps:
        raise MultiplierError(
            f'start and stop are steps, but the schedule "{strength}" is in fractions of the pass: use one of the two'
        )
    return start, stop, strength.in_steps


def _attention(text: str) -> str:
    if text not in ATTENTION_KINDS:
        raise MultiplierError(f'attn="{text}" is not known, write attn=cross or attn=self')
    return text


def _blocks(text: str) -> tuple[float, ...]:
    if text.upper() in BLOCK_PRESETS:
        return BLOCK_PRESETS[text.upper()]
    try:
        numbers = tuple(parse_number(part, "argument lbw") for part in re.split("[,;]", text))
    except MultiplierError as error:
        presets = ", ".join(BLOCK_PRESETS)
        raise MultiplierError(
            f'lbw="{text}" is neither a preset ({presets}) nor a list of numbers'
        ) from error
    sizes = sorted({len(b) + extra for b in (BLOCKS_SD1, BLOCKS_SDXL) for extra in (0, 1)})
    if len(numbers) not in sizes:
        raise MultiplierError(
            f"lbw has {len(numbers)} numbers, write {', '.join(map(str, sizes[:-1]))} or {sizes[-1]}"
        )
    return numbers
