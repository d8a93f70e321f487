"""From the form's fields to the command line of ``train``."""

from __future__ import annotations

from pathlib import Path

from ....errors import TrainingSettingsError
from ....files.lines import lines_of
from ....training.creation import check_name
from ....ui.training.values import MOST_PREVIEWS, NEW, FormValues, creation_of

_NUMBERS = {
    "steps": int, "batch": int, "accumulation": int, "warm_up": int, "restarts": int,
    "weight_decay": float, "clip": float, "min_snr": float, "noise_offset": float, "ema": float,
    "caption_dropout": float, "seed": int, "crops": int, "tag_dropout": float,
    "validation": float, "save_every": int, "keep": int, "watch_every": int,
    "preview_every": int,
}  # fmt: skip
"""Fields that are options of the same name; an empty one leaves it to the preset."""
_TEXTS = ("rate", "shape", "optimiser", "precision", "memory", "checkpointing", "template")
_SWITCHES = {
    "flip": "--flip",
    "alpha": "--alpha",
    "shuffle": "--shuffle",
    "start_over": "--restart",
}


def arguments_of(
    values: FormValues,
    images: Path,
    checkpoint: Path,
    runs: Path,
    network: Path | None,
    device: str | None = None,
) -> list[str]:
    """What follows ``python -m hypernetworks``.

    Args:
        network: file to start from, where a network is chosen in the form.
        device: that the webui was told to use; ``None`` leaves it to the trainer.

    Raises:
        TrainingSettingsError, StructureError: the fields say something impossible. The trainer
            checks everything else, and its message is shown.
    """
    check(values)
    found = ["train", values.name.strip(), str(images), "--runs", str(runs)]
    found += ["--checkpoint", str(checkpoint), "--preset", values.purpose]
    found += ["--format", values.file_suffix.lstrip(".")]
    found += _network(values) if network is None else ["--network", str(network)]
    found += [] if device is None else ["--device", device]

    # With "=", because a value may begin with "-".
    for name, kind in _NUMBERS.items():
        if (number := getattr(values, name)) is not None:
            found.append(f"--{name.replace('_', '-')}={kind(number)}")
    for name in _TEXTS:
        if entered := str(getattr(values, name)).strip():
            found.append(f"--{name.replace('_', '-')}={entered}")

    found += [option for name, option in _SWITCHES.items() if getattr(values, name)]
    found += _size(values)
    found += ["--buckets"] if values.fit == "buckets" else []
    prompts = [line.strip() for line in lines_of(values.previews) if line.strip()]
    return found + [f"--preview={prompt}" for prompt in prompts[:MOST_PREVIEWS]]


def check(values: FormValues) -> None:
    """Refuse fields that no training could begin with, before images are stored.

    Raises:
        TrainingSettingsError, StructureError: what is wrong.
    """
    check_name(values.name.strip())
    creation_of(values)
    if values.template.strip().endswith(".txt"):
        raise TrainingSettingsError(
            "on the page, a template is a line of text, not a file: enter the line itself"
        )


def _network(values: FormValues) -> list[str]:
    """The options of a new network, all of them: the preset's would take the place of others."""
    creation = creation_of(values)
    structure = creation.structure
    found = [
        "--layers=" + ",".join(f"{part:g}" for part in structure.layer_structure),
        f"--activation={structure.activation}",
        "--dropout=" + ",".join(f"{part:g}" for part in structure.dropout),
        f"--initialisation={creation.initialisation}",
        f"--network-seed={creation.seed}",
    ]
    found += ["--layer-norm"] if structure.layer_norm else []
    found += [] if creation.zero_last else ["--random-last"]
    return [*found, "--self-attention" if creation.self_attention else "--text-only"]


def _size(values: FormValues) -> list[str]:
    if not values.width and not values.height:
        return []  # the model's own
    width = int(values.width or values.height or 0)
    return [f"--size={width}x{int(values.height or width)}"]


def starts_from(values: FormValues) -> str | None:
    """The name of the network that is trained further, if one is chosen."""
    return None if values.begin_with in ("", NEW) else values.begin_with
