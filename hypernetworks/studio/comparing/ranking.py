"""Which blocks matter for a network: the change of the image without each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .axes import AS_IT_IS, BLOCK_OFF, Axis
from .planning import Cell, Plan

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...hosts.diffusers import Picture


def difference(one: Image, other: Image) -> float:
    """Mean absolute difference of two images of one size, as a fraction of the range of values."""
    from PIL import ImageChops, ImageStat

    means = ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean
    return sum(means) / len(means) / 255


def ranked(
    todo: Plan, pictures: dict[Cell, Picture]
) -> tuple[Plan, dict[Cell, Picture], dict[str, float]]:
    """Sort the columns of a finished sheet by their change, the largest first.

    Only for columns of the kind :data:`~hypernetworks.studio.comparing.axes.BLOCK_OFF`; other
    sheets, and interrupted ones, stay as they are.

    Returns:
        The plan, the pictures, and the change by the columns' labels: mean absolute difference to
        the image with all blocks, over rows and pages, as a fraction of the range of values.
    """
    # An order that changes with the images that are missing would mislead.
    if todo.columns.kind != BLOCK_OFF or len(pictures) < len(todo.jobs):
        return todo, pictures, {}

    labels = todo.labels[0]
    whole = labels.index(AS_IT_IS)
    changes = {
        label: _mean_change(pictures, number, whole)
        for number, label in enumerate(labels)
        if number != whole
    }

    blocks = [label for label in todo.columns.values if label != AS_IT_IS]
    order = [AS_IT_IS, *sorted(blocks, key=lambda label: -changes[label])]
    places = {label: number + todo.has_without for number, label in enumerate(order)}
    moved = {
        cell: (cell[0], cell[1], places.get(labels[cell[2]], cell[2]))
        if cell[2] >= todo.has_without
        else cell
        for cell in todo.jobs
    }
    plan = replace(
        todo,
        columns=Axis(BLOCK_OFF, tuple(order)),
        jobs=dict(sorted((moved[cell], job) for cell, job in todo.jobs.items())),
    )
    return plan, {moved[cell]: picture for cell, picture in pictures.items()}, changes


def _mean_change(pictures: dict[Cell, Picture], column: int, whole: int) -> float:
    places = [cell for cell in pictures if cell[2] == column]
    changes = [
        difference(pictures[cell].image, pictures[cell[0], cell[1], whole].image) for cell in places
    ]
    return sum(changes) / len(changes)


def notes(changes: dict[str, float], without: str) -> dict[str, str]:
    """What is written beside each column: its change, and what share of the whole effect that
    is.
    """
    # Only a sheet with that column knows how much the network does in all.
    whole = changes.get(without)
    found = {}
    for label, change in changes.items():
        share = f", {change / whole:.0%} of the effect" if whole and label != without else ""
        found[label] = f"changes {change:.1%}{share}"
    return found
