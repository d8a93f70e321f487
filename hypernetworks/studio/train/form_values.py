"""What the fields of the Train tab say, and the job that they mean."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engine.initialising import parameter_count
from ...errors import TrainingSettingsError
from ...files.lines import lines_of
from ...hosts.diffusers.training import TrainingJob, preset_job
from ...hosts.diffusers.training.frozen_model import FrozenModel
from ...training import TrainingSettings
from ...training.pictures import PictureSettings
from ...ui.training.values import (
    MOST_PREVIEWS,
    NEW,
    FormValues,
    creation_of,
    size_in_words,
    values_of,
)

if TYPE_CHECKING:
    from ...hosts.diffusers import Painter

LARGEST_BATCH, LARGEST_EDGE, MOST_NUMBERS = 512, 2048, 10**9
"""So that a slip on the page can't take all of the machine's memory; the command line has no such
limits.
"""


def of_preset(purpose: str, painter: Painter) -> dict[str, Any]:
    """The fields' values that a purpose begins with, for the loaded model; those that it says
    nothing of are left out.

    Raises:
        TrainingSettingsError: no such purpose.
    """
    job = preset_job(purpose, "some", Path(), painter)
    return values_of(job.creation.structure, job.settings, job.picture_settings, job.creation)


def size_of(values: FormValues, painter: Painter) -> str:
    """How large the network will be, in words; or what is wrong with it."""
    return size_in_words(values, FrozenModel(painter.pipeline).widths(values.self_attention))


def job_of(values: FormValues, painter: Painter, pictures: Path, runs: Path) -> TrainingJob:
    """The job that the fields describe, on the loaded model; empty fields are the preset's.

    Raises:
        TrainingSettingsError, StructureError: with what is wrong.
        NameLookupError: there is no such network to go on from.
    """
    job = preset_job(values.purpose, values.name.strip(), pictures, painter)
    # A template file is read by its path: a page must not name files of this machine.
    if values.template.strip().endswith(".txt"):
        raise TrainingSettingsError(
            "on the page, a template is a line of text, not a file: enter the line itself"
        )

    _check_size(values, painter)
    prompts = [line.strip() for line in lines_of(values.previews) if line.strip()]
    # Looked up by name: the same rule as for tags.
    begin = None if values.begin_with in ("", NEW) else painter.library.find(values.begin_with).path

    return replace(
        job,
        runs=runs,
        creation=creation_of(values),
        network=begin,
        settings=replace(job.settings, **_changes(values, job.settings)),
        picture_settings=replace(job.picture_settings, **_changes(values, job.picture_settings)),
        suffix=values.file_suffix,
        previews=tuple(prompts[:MOST_PREVIEWS]),
        restart=values.start_over,
        memory=values.memory,
        checkpointing=values.checkpointing,
    )


def _check_size(values: FormValues, painter: Painter) -> None:
    limits = {"batch": LARGEST_BATCH, "width": LARGEST_EDGE, "height": LARGEST_EDGE}
    for name, most in limits.items():
        if (getattr(values, name) or 0) > most:
            raise TrainingSettingsError(
                f"{name} is {getattr(values, name):g}: the page allows at most {most}"
            )
    widths = FrozenModel(painter.pipeline).widths(values.self_attention)
    layers = creation_of(values).structure
    if max(layers.layer_structure) > 100 or parameter_count(layers, widths) > MOST_NUMBERS:
        raise TrainingSettingsError(
            "the network would be larger than 4 GB: use a smaller layer structure"
        )


def _changes(values: FormValues, record: TrainingSettings | PictureSettings) -> dict[str, Any]:
    """Fields of a record that the page has values for, whole numbers as such."""
    names = {field.name for field in fields(record)} & {field.name for field in fields(values)}
    given = {
        name: getattr(values, name) for name in names if getattr(values, name) not in (None, "")
    }
    whole = {
        name
        for name in names
        if isinstance(getattr(record, name), int) and not isinstance(given.get(name), bool)
    }
    return {name: int(value) if name in whole else value for name, value in given.items()}
