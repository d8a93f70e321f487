"""The axes of a sheet: what each kind changes in a job, and in which order they are applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ...engine.blocks import BLOCKS_SD1, BLOCKS_SDXL
from ...engine.multiplier import format_number
from ...errors import HypernetworkError, TagError
from ...hosts.diffusers import Generation
from ...hosts.diffusers.samplers import SAMPLERS
from ...prompts import Tag, parse
from ...prompts.rewriting import add_tag, rewrite_tags
from ..ranges import RANGES
from . import values

NETWORK, CHECKPOINT, MULTIPLIER = "Network", "Training step", "Multiplier"
BLOCKS, BLOCK_OFF, WORDS = "Blocks", "One block off", "Words"
STEPS, CFG, SEED, SAMPLER = "Steps", "CFG scale", "Seed", "Sampler"
AS_IT_IS = "all blocks"
"""The value of :data:`BLOCK_OFF` that the others are measured against."""


@dataclass(frozen=True)
class Axis:
    """One direction of a sheet.

    Attributes:
        kind: a key of :data:`KINDS`.
        values: as they are shown.
    """

    kind: str
    values: tuple[str, ...]


Change = Callable[[Generation, str, Axis, frozenset[str]], Generation]
"""A job with a value of an axis; the last argument has the names of the compared networks."""


@dataclass(frozen=True)
class Kind:
    """What can be compared.

    Attributes:
        example: shown in the empty field.
        parse: from typed text to values.
        change: applies one of them.
    """

    example: str
    parse: Callable[[str], tuple[str, ...]]
    change: Change


def _words(job: Generation, value: str, axis: Axis, _names: frozenset[str]) -> Generation:
    # As in webuis: the first of the words is what the prompt has now.
    searched = axis.values[0]
    return replace(
        job,
        prompt=job.prompt.replace(searched, value),
        negative=job.negative.replace(searched, value),
    )


def _network(job: Generation, value: str, _axis: Axis, names: frozenset[str]) -> Generation:
    """Of the compared networks, only this one; named arguments of its tag stay."""
    seen: list[Tag] = []

    def change(tag: Tag) -> Tag | None:
        if tag.name not in names:
            return tag
        if tag.name != value:
            return None
        seen.append(tag)
        return tag

    text = rewrite_tags(job.prompt, change)
    return replace(job, prompt=text if seen else add_tag(text, Tag((value, "1"))))


def _multiplier(job: Generation, value: str, _axis: Axis, names: frozenset[str]) -> Generation:
    return _retagged(job, names, lambda tag: tag.with_multiplier(value))


def _blocks(job: Generation, value: str, _axis: Axis, names: frozenset[str]) -> Generation:
    return _retagged(job, names, lambda tag: tag.with_argument("lbw", value))


def _block_off(job: Generation, value: str, axis: Axis, names: frozenset[str]) -> Generation:
    """All networks without one block. For SD1 and SDXL it stands in the tag, and so in the
    infotext; other models have no ``lbw``.
    """
    if value == AS_IT_IS:
        return job
    here = set(axis.values) - {AS_IT_IS}
    # The tag's own way keeps the effect in the infotext, so that the image can be made again.
    known = next((each for each in (BLOCKS_SD1, BLOCKS_SDXL) if here <= set(each)), None)
    if known is None:
        return replace(job, block_off=value)

    def change(tag: Tag) -> Tag:
        try:
            factors = tag.multiplier.block_factors(known) if tag.multiplier is not None else {}
        except TagError:
            factors = {}
        numbers = [0.0 if name == value else factors.get(name, 1.0) for name in known]
        return tag.with_argument("lbw", ",".join(map(format_number, numbers)))

    return _retagged(job, names, change)


def _retagged(
    job: Generation, names: frozenset[str], change: Callable[[Tag], Tag | None]
) -> Generation:
    """The job with the tags of some networks changed."""
    prompt = rewrite_tags(job.prompt, lambda tag: change(tag) if tag.name in names else tag)
    return replace(job, prompt=prompt)


def without_networks(job: Generation, names: frozenset[str]) -> Generation:
    """The job without the tags of the compared networks."""
    return _retagged(job, names, lambda _: None)


def same_image(job: Generation) -> Generation:
    """What decides over the image: tags at multiplier 0 do nothing."""

    def change(tag: Tag) -> Tag | None:
        return None if tag.multiplier is not None and tag.multiplier.is_zero else tag

    # Equal images are generated once: here, for all multipliers of a row that are 0.
    prompt = rewrite_tags(job.prompt, change)
    has_tags = bool(parse(prompt)[1])
    return replace(job, prompt=prompt.strip(), block_off=job.block_off if has_tags else None)


def _samplers(text: str) -> tuple[str, ...]:
    known = {name.lower(): name for name in SAMPLERS}
    found = values.words(text)
    for name in found:
        if name.lower() not in known:
            raise HypernetworkError(
                f'there is no sampler "{name}": use some of {", ".join(SAMPLERS)}'
            )
    return tuple(known[name.lower()] for name in found)


def _within(name: str, *, whole: bool) -> Callable[[str], tuple[str, ...]]:
    def parse_numbers(text: str) -> tuple[str, ...]:
        found = values.numbers(text, whole=whole)
        wrong = next((value for value in found if float(value) not in RANGES[name]), None)
        if wrong is not None:
            raise HypernetworkError(RANGES[name].refusal(wrong))
        return found

    return parse_numbers


KINDS: dict[str, Kind] = {
    WORDS: Kind(
        "cat, dog, a bird: the first is searched for in the prompt and replaced by the others",
        values.words,
        _words,
    ),
    NETWORK: Kind(
        "empty: those in the prompt, or the first in the library", values.words, _network
    ),
    CHECKPOINT: Kind("the name of a run, or of some steps: ink: 50, 100", values.words, _network),
    MULTIPLIER: Kind("0, 0.5, 1  or  0-1 [5]  or  1 0@0,1@0.5", values.multipliers, _multiplier),
    BLOCKS: Kind("INALL, MIDD, OUTALL; lists of numbers with ; between", values.blocks, _blocks),
    BLOCK_OFF: Kind("empty: each block in turn", values.words, _block_off),
    STEPS: Kind(
        "10, 20, 30  or  10-50 (+10)",
        _within("steps", whole=True),
        lambda job, value, _axis, _names: replace(job, steps=int(value)),
    ),
    CFG: Kind(
        "1, 3, 7  or  1-9 (+2)",
        _within("cfg", whole=False),
        lambda job, value, _axis, _names: replace(job, cfg=float(value)),
    ),
    SEED: Kind(
        "1, 2, 3  or  1-4",
        _within("seed", whole=True),
        lambda job, value, _axis, _names: replace(job, seed=int(value)),
    ),
    SAMPLER: Kind(
        ", ".join(list(SAMPLERS)[:3]),
        _samplers,
        lambda job, value, _axis, _names: replace(job, sampler=value),
    ),
}
"""In the order of their application: words are searched for in the prompt as it was typed."""


def applied(
    job: Generation,
    chosen: Iterable[tuple[Axis, str | None]],
    names: frozenset[str],
    spelled: Callable[[Generation], Generation] = lambda job: job,
) -> Generation:
    """A cell's job.

    Args:
        job: as the fields have it.
        chosen: a value for each axis; ``None`` is the column without the networks.
        names: the networks that are compared.
        spelled: writes their tags as ``names`` does.
    """
    # Not in the order of the axes: a multiplier needs the network that another axis puts in.
    pairs, order = list(chosen), list(KINDS)
    given = [(axis, value) for axis, value in pairs if value is not None]
    words = [pair for pair in given if pair[0].kind == WORDS]
    others = [pair for pair in given if pair[0].kind != WORDS]
    for axis, value in words:  # they are searched for in the prompt as it was typed
        job = KINDS[axis.kind].change(job, value, axis, names)

    job = spelled(job)
    for axis, value in sorted(others, key=lambda pair: order.index(pair[0].kind)):
        job = KINDS[axis.kind].change(job, value, axis, names)

    if len(given) < len(pairs):
        job = without_networks(job, names)
    return replace(job, batch=1)
