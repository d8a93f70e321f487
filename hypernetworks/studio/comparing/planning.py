"""From what is typed to the jobs of a sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ...errors import HypernetworkError
from ...hosts.diffusers import Generation
from ...library import Library
from ...prompts import parse
from .axes import (
    AS_IT_IS,
    BLOCK_OFF,
    BLOCKS,
    CHECKPOINT,
    KINDS,
    MULTIPLIER,
    NETWORK,
    WORDS,
    Axis,
    applied,
    same_image,
)
from .spelling import Spellings

MOST_CELLS = 200
MOST_NETWORKS = 6
"""How many networks are compared when none is named."""
WITHOUT = "without"
"""The label of the column without the networks."""
Cell = tuple[int, int, int]
"""Page, row and column, each from 0."""
_CHOOSING = (NETWORK, CHECKPOINT)


@dataclass(frozen=True)
class Plan:
    """What a sheet shows.

    Attributes:
        columns, rows, pages: an axis each; one without a kind has a single value, ``""``.
        has_without: the first column is without the networks, and the axis's values follow.
        names: the networks that are compared.
        jobs: by page, row and column, in the order of the work.
        spellings: how ``names`` writes the networks of the prompt.
    """

    columns: Axis
    rows: Axis
    pages: Axis
    has_without: bool
    names: frozenset[str]
    jobs: dict[Cell, Generation]
    spellings: Spellings

    @property
    def labels(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """Of the columns, rows and pages."""
        first = (WITHOUT,) if self.has_without else ()
        return (*first, *self.columns.values), self.rows.values, self.pages.values

    def groups(self) -> list[list[Cell]]:
        """Cells that show the same image stand together, since it is generated once."""
        found: dict[Generation, list[Cell]] = {}
        for cell, job in self.jobs.items():
            found.setdefault(same_image(job), []).append(cell)
        return list(found.values())

    def label(self, cell: Cell) -> str:
        """A cell in words."""
        columns, rows, pages = self.labels
        parts = (pages[cell[0]], rows[cell[1]], columns[cell[2]])
        return " · ".join(part for part in parts if part)


def plan(
    job: Generation,
    axes: Sequence[tuple[str, str]],
    library: Library,
    *,
    without: bool = False,
    blocks: Sequence[str] = (),
) -> Plan:
    """Work out a sheet.

    Args:
        job: with the settings that no axis changes.
        axes: kind and typed values of columns, rows and pages; kind ``""`` for none.
        library: which has the networks; each name is looked up before the work, not after.
        without: begin with a column without the networks.
        blocks: of the loaded model, for :data:`BLOCK_OFF`.

    Raises:
        HypernetworkError: an axis can't be used, there is nothing to compare, or too much of it.
    """
    kinds = [kind for kind, _ in axes if kind]
    if not kinds:
        raise HypernetworkError("choose what to compare: at least one axis")
    _check_kinds(kinds)

    columns, rows, pages = (
        Axis(kind, _values(kind, text, job, library, blocks)) if kind else Axis("", ("",))
        for kind, text in [*axes, ("", ""), ("", "")][:3]
    )
    _check_networks(job, (columns, rows, pages), without)

    # Counted before the jobs are built: ranges can mean millions of them.
    count = (len(columns.values) + without) * len(rows.values) * len(pages.values)
    if count > MOST_CELLS:
        raise HypernetworkError(f"the sheet would have {count} images: choose at most {MOST_CELLS}")
    chosen = [name for axis in (columns, rows, pages) for name in _chosen(axis)]
    spellings = Spellings(library, chosen)
    columns, rows, pages = (_spelled(axis, spellings) for axis in (columns, rows, pages))
    names = _names(job, (columns, rows, pages))
    for name in names:
        library.find(name)
    jobs = dict(_jobs(job, (columns, rows, pages), without, names, spellings))
    return Plan(columns, rows, pages, without, names, jobs, spellings)


def without_values(todo: Plan, job: Generation, left_out: frozenset[str]) -> Plan | None:
    """The plan without some networks; ``None`` where nothing is left."""
    axes = [
        Axis(axis.kind, tuple(v for v in axis.values if v not in left_out))
        if axis.kind in _CHOOSING
        else axis
        for axis in (todo.columns, todo.rows, todo.pages)
    ]
    if not all(axis.values for axis in axes):
        return None
    names = todo.names - left_out
    columns, rows, pages = axes
    jobs = dict(_jobs(job, (columns, rows, pages), todo.has_without, names, todo.spellings))
    return replace(todo, columns=columns, rows=rows, pages=pages, names=names, jobs=jobs)


def _check_kinds(kinds: Sequence[str]) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise HypernetworkError(f'"{kind}" can\'t be compared: use {", ".join(KINDS)}')
        if kinds.count(kind) > 1:
            raise HypernetworkError(f"{kind} is on two axes: choose another for one of them")
    # Both put networks into the prompt, and each would take the other's out.
    if all(kind in kinds for kind in _CHOOSING):
        raise HypernetworkError(f"choose {NETWORK} or {CHECKPOINT}, not both")


def _values(
    kind: str, text: str, job: Generation, library: Library, blocks: Sequence[str]
) -> tuple[str, ...]:
    """The values of an axis, with what an empty field means."""
    found = KINDS[kind].parse(text)
    if kind == BLOCK_OFF:
        return _blocks_off(found, blocks)

    if kind == NETWORK and not found:
        found = _of_prompt(job.prompt) or tuple(
            library.name_of(entry) for entry in library.entries[:MOST_NETWORKS]
        )
        if not found:
            raise HypernetworkError(
                "there is no network to compare: drop a hypernetwork file on the page first"
            )

    # The same rule as in webuis: a search that finds nothing would make equal images.
    if kind == WORDS and found and found[0] not in f"{job.prompt}\n{job.negative}":
        raise HypernetworkError(
            f'"{found[0]}" is not in the prompt: the first of the words is replaced by the others'
        )
    if not found:
        raise HypernetworkError(f"{kind}: type some values, such as {KINDS[kind].example}")
    return found


def _blocks_off(found: tuple[str, ...], blocks: Sequence[str]) -> tuple[str, ...]:
    wrong = next((name for name in found if name not in blocks and name != AS_IT_IS), None)
    if wrong is not None:
        raise HypernetworkError(f'the model has no block "{wrong}": it has {", ".join(blocks)}')
    named = found or tuple(blocks)
    return (AS_IT_IS, *(name for name in named if name != AS_IT_IS))


def _of_prompt(prompt: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag.name for tag in parse(prompt)[1] if tag.error is None))


def _chosen(axis: Axis) -> tuple[str, ...]:
    """The networks that an axis names."""
    return axis.values if axis.kind in _CHOOSING else ()


def _spelled(axis: Axis, spellings: Spellings) -> Axis:
    """The axis with each network once."""
    if axis.kind not in _CHOOSING:
        return axis
    return Axis(axis.kind, tuple(dict.fromkeys(map(spellings.of, axis.values))))


def _names(job: Generation, axes: Sequence[Axis]) -> frozenset[str]:
    """The networks that the axes act on."""
    chosen = next((axis.values for axis in axes if axis.kind in _CHOOSING), None)
    return frozenset(_of_prompt(job.prompt) if chosen is None else chosen)


def _check_networks(job: Generation, axes: Sequence[Axis], without: bool) -> None:
    """Raises HypernetworkError where the axes need a network, and there is none."""
    needing = [axis.kind for axis in axes if axis.kind in (MULTIPLIER, BLOCKS, BLOCK_OFF)]
    if (needing or without) and not _names(job, axes):
        what = needing[0] if needing else "The column without the network"
        raise HypernetworkError(
            f"{what}: the prompt has no network; click a card, or choose {NETWORK} for an axis"
        )


def _jobs(
    job: Generation,
    axes: tuple[Axis, Axis, Axis],
    without: bool,
    names: frozenset[str],
    spellings: Spellings,
) -> Iterator[tuple[Cell, Generation]]:
    """Row by row, so that each network's file is read once."""
    columns, rows, pages = axes
    across: list[str | None] = [*([None] if without else []), *columns.values]
    places = product(enumerate(pages.values), enumerate(rows.values), enumerate(across))
    for (page, of_page), (row, of_row), (column, of_column) in places:
        chosen = [(columns, of_column), (rows, of_row), (pages, of_page)]
        used = [(axis, value) for axis, value in chosen if axis.kind or value is None]
        yield (page, row, column), applied(job, used, names, spellings.in_tags)
