"""What the fields of a form for training say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ...engine.initialising import parameter_count
from ...engine.structure import Structure
from ...errors import HypernetworkError, TrainingSettingsError
from ...training.creation import Creation

MOST_PREVIEWS = 4
NEW = "(a new network)"


@dataclass(frozen=True)
class FormValues:
    """The fields, as the page has them: any of them may be empty.

    Attributes:
        name, purpose: of the network; a purpose is a preset.
        key: of the folder of pictures, see
            :class:`~hypernetworks.training.folders.TrainingFolders`.
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


def values_of(structure: Structure, *records: object) -> dict[str, Any]:
    """The fields' values as a structure and records of settings have them, by name; fields that
    none of them has are left out.
    """
    values: dict[str, Any] = {
        "layers": ", ".join(f"{part:g}" for part in structure.layer_structure),
        "activation": structure.activation,
        "dropout": max(structure.dropout, default=0.0),
        "layer_norm": structure.layer_norm,
    }
    known = {field.name for field in fields(FormValues)}
    for record in records:
        values |= {name: value for name, value in vars(record).items() if name in known}
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


def size_in_words(values: FormValues, widths: Sequence[int]) -> str:
    """How large the network will be for these widths; or what is wrong with it."""
    if values.begin_with not in ("", NEW):
        return f"As large as {values.begin_with}."
    try:
        count = parameter_count(creation_of(values).structure, widths)
    except HypernetworkError as error:
        return str(error)
    return (
        f"{count:,} parameters, {count * 4 / 1e6:.1f} MB, for the widths "
        f"{', '.join(map(str, widths))}."
    )
