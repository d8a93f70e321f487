"""What the fields of the Train tab say, and the job that they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engine.initialising import parameter_count
from ...engine.structure import Structure
from ...errors import HypernetworkError, TrainingSettingsError
from ...hosts.diffusers.training import TrainingJob, preset_job
from ...hosts.diffusers.training.frozen_model import FrozenModel
from ...training import TrainingSettings
from ...training.creation import Creation
from ...training.pictures import PictureSettings

if TYPE_CHECKING:
    from ...hosts.diffusers import Painter

MOST_PREVIEWS = 4
LARGEST_BATCH, LARGEST_EDGE, MOST_NUMBERS = 512, 2048, 10**9
"""So that a slip on the page can't take all of the machine's memory; the command line has no such
limits.
"""
NEW = "(a new network)"


@dataclass(frozen=True)
class FormValues:
    """The fields, as the page has them: any of them may be empty.

    Attributes:
        name, purpose: of the network; a purpose is a preset.
        key: of the folder of pictures, see :class:`~.folders.TrainingFolders`.
        path: of a folder of pictures, in place of a key.
        start_over: throw an earlier run of this name away.
        replace: a network of this name in the library may be replaced.
        previews: prompts, one a line.
        begin_with: name of a network to go on from, or :data:`NEW`.
        layers: layer structure, such as ``"1, 2, 1"``.
    """

    name: str = ""
    purpose: str = "style"
    key: str = ""
    path: str = ""
    start_over: bool = False
    replace: bool = False
    steps: float | None = None
    rate: str = ""
    previews: str = ""
    begin_with: str = NEW
    layers: str = "1, 2, 1"
    activation: str = "relu"
    initialisation: str = "Normal"
    layer_norm: bool = False
    dropout: float | None = 0.0
    self_attention: bool = True
    zero_last: bool = True
    batch: float | None = None
    accumulation: float | None = None
    shape: str = "auto"
    warm_up: float | None = None
    restarts: float | None = None
    optimiser: str = "AdamW"
    weight_decay: float | None = None
    precision: str = "auto"
    memory: str = "auto"
    checkpointing: str = "auto"
    clip: float | None = None
    min_snr: float | None = None
    noise_offset: float | None = None
    ema: float | None = None
    caption_dropout: float | None = None
    seed: float | None = None
    width: float | None = None
    height: float | None = None
    fit: str = "crop"
    crops: float | None = None
    flip: bool = False
    alpha: bool = False
    template: str = "[filewords]"
    shuffle: bool = False
    tag_dropout: float | None = None
    validation: float | None = None
    save_every: float | None = None
    keep: float | None = None
    watch_every: float | None = None
    preview_every: float | None = None
    file_suffix: str = ".safetensors"


def of_preset(purpose: str, painter: Painter) -> dict[str, Any]:
    """The fields' values that a purpose begins with, for the loaded model; those that it says
    nothing of are left out.

    Raises:
        TrainingSettingsError: no such purpose.
    """
    job = preset_job(purpose, "some", Path(), painter)
    structure = job.creation.structure
    own = {
        "layers": ", ".join(f"{part:g}" for part in structure.layer_structure),
        "activation": structure.activation,
    }
    values: dict[str, Any] = own | {
        "dropout": max(structure.dropout, default=0.0),
        "layer_norm": structure.layer_norm,
    }

    for record in (job.settings, job.picture_settings, job.creation):
        for field in fields(FormValues):
            if field.name in {known.name for known in fields(record)}:
                values[field.name] = getattr(record, field.name)

    return values


def creation_of(values: FormValues) -> Creation:
    """The fresh network that the fields describe.

    Raises:
        TrainingSettingsError, StructureError: it can't be built.
    """
    try:
        layers = tuple(float(part) for part in re.split(r"[,;\s]+", values.layers.strip(" ,;[]")))
    except ValueError as error:
        raise TrainingSettingsError(
            f'the layer structure "{values.layers}" is not a list such as 1, 2, 1'
        ) from error

    dropout = (
        (0.0, *[float(values.dropout or 0)] * (len(layers) - 2), 0.0) if len(layers) > 1 else (0.0,)
    )
    structure = Structure(
        layers,
        values.activation,
        activate_output=False,
        layer_norm=values.layer_norm,
        dropout=dropout,
    )

    return Creation(
        structure,
        values.initialisation,
        values.zero_last,
        values.self_attention,
        int(values.seed or 0),
    )


def size_of(values: FormValues, painter: Painter) -> str:
    """How large the network will be, in words; or what is wrong with it."""
    if values.begin_with not in ("", NEW):
        return f"As large as {values.begin_with}."
    widths = FrozenModel(painter.pipeline).widths(values.self_attention)
    try:
        count = parameter_count(creation_of(values).structure, widths)
    except HypernetworkError as error:
        return str(error)
    return (
        f"{count:,} parameters, {count * 4 / 1e6:.1f} MB, for the widths "
        f"{', '.join(map(str, widths))}."
    )


def job_of(values: FormValues, painter: Painter, pictures: Path, runs: Path) -> TrainingJob:
    """The job that the fields describe, on the loaded model; empty fields are the preset's.

    Raises:
        TrainingSettingsError, StructureError: with what is wrong.
        NameLookupError: there is no such network to go on from.
    """
    job = preset_job(values.purpose, values.name.strip(), pictures, painter)
    if values.template.strip().endswith(".txt"):
        raise TrainingSettingsError(
            "on the page, a template is a line of text, not a file: enter the line itself"
        )

    _check_size(values, painter)
    prompts = [line.strip() for line in values.previews.splitlines() if line.strip()]
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
