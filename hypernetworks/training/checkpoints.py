"""The state of a run in its folder: network files named after finished steps, and one file to
resume from.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch

from ..engine.network import Hypernetwork
from ..engine.structure import Structure
from ..errors import FileError, FileWriteError, TrainingStateError, printable
from ..files import write
from ..files.naming import composed
from ..files.torch_files import read_plain
from ..files.writing import replace as replace_file
from .history import difference

STATE = "state.pt"
"""Everything that resuming needs: weights, optimiser, scaler, average and step."""
SETTINGS = "settings.json"
"""In a run's folder: the job, for people, and to see what is different when it goes on."""
MEASURED_SINCE = "measured_since"
"""In the settings: the last step whose validation loss can't be compared with later ones."""
MARK = "in_library.txt"
"""In a run's folder: what of it was put into a library last, so that the next one may take its
place.
"""
FORMAT = 1


def make_folder(folder: Path) -> None:
    """Create the folder of a run.

    Raises:
        FileWriteError: the system refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileWriteError(
            f"{folder}: the folder can't be created ({error.strerror or error})"
        ) from error


def save_network(network: Hypernetwork, folder: Path, suffix: str) -> Path:
    """Write ``NAME-STEP.suffix``."""
    path = network_file(folder, network, suffix)
    write(network, path)
    return path


def network_file(folder: Path, network: Hypernetwork, suffix: str) -> Path:
    """Where a network is kept as it is after the steps that it has been trained for."""
    return folder / f"{network.name}-{network.provenance.step}{suffix}"


def best_file(folder: Path, name: str, suffix: str) -> Path:
    """Where the network of the lowest validation loss is kept."""
    return folder / f"{name}-best{suffix}"


def remove_old(folder: Path, name: str, suffix: str, keep: int) -> None:
    """Remove network files older than the newest ``keep``; one in use stays."""
    for old in saved_networks(folder, name, suffix)[:-keep]:
        with suppress(OSError):
            old.unlink()


def saved_networks(folder: Path, name: str, suffix: str) -> list[Path]:
    """Network files of a run, by rising step."""
    pattern = re.compile(re.escape(composed(name)) + r"-(\d+)" + re.escape(suffix))
    found = [  # macOS lists names in another Unicode form than they were given
        (int(match[1]), path)
        for path in folder.iterdir()
        if (match := pattern.fullmatch(composed(path.name)))
    ]
    return [path for _, path in sorted(found)]


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace the state file, whole or not at all."""
    # A run may go on with another device, or without any.
    content = on_cpu({"format": FORMAT, **state})  # whatever device the run goes on with
    replace_file(folder / STATE, lambda temporary: torch.save(content, temporary))


def on_cpu(value: Any, *, copy: bool = False) -> Any:
    """A state with its tensors on the CPU.

    Args:
        copy: whether those that are there already are copied, too.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=copy)
    if isinstance(value, dict):
        return {key: on_cpu(item, copy=copy) for key, item in value.items()}
    return [on_cpu(item, copy=copy) for item in value] if isinstance(value, list) else value


def load_state(folder: Path | None) -> dict[str, Any] | None:
    """The state in a run's folder, on the CPU; ``None`` where there is none.

    Raises:
        TrainingStateError: it is damaged or of another version.
    """
    if folder is None or not (folder / STATE).exists():
        return None

    try:
        state = read_plain(folder / STATE)
    except (FileError, OSError, MemoryError) as error:
        raise damaged(folder) from error

    version = state.get("format") if isinstance(state, dict) else None
    if not isinstance(version, int) or version != FORMAT:
        raise TrainingStateError(
            f"{folder / STATE} was written by another version: finish that run with that "
            "version, or delete the file"
        )
    # The file may come from a stranger: nothing is used before its kinds are checked.
    known = all(fits(state.get(key)) for key, fits in _KINDS.items())
    if not known or not all(fits(state[key]) for key, fits in _NEWER.items() if key in state):
        raise damaged(folder)

    return dict(state)


def damaged(folder: Path) -> TrainingStateError:
    """The error for a state that can't be used."""
    return TrainingStateError(
        f"{folder / STATE} is damaged: delete it to start over, or restore a copy of it"
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 62


def _are_tensors(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, torch.Tensor) for item in value)


def _are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(v, (int, float)) for v in value.values())


_KINDS: dict[str, Callable[[object], bool]] = {
    "step": _is_count,
    "base": _is_count,
    "parameters": _are_tensors,
    "average": _are_tensors,
    "optimiser_name": lambda value: isinstance(value, str) and value.isidentifier(),
    "optimiser": lambda value: isinstance(value, dict) and {"state", "param_groups"} <= set(value),
    "scaler": _are_numbers,
    "watch": _are_numbers,
}
"""What stands in a state.

The file may be a stranger's, and nothing else of it is compared or shown.
"""


_BEST = {"step", "loss", "since", "previous"}
_NEWER: dict[str, Callable[[object], bool]] = {
    "gains": _are_tensors,
    "best": lambda value: _are_numbers(value) and set(cast("dict[str, float]", value)) >= _BEST,
    "measured": lambda value: value is None or isinstance(value, str),
    "structure": lambda value: isinstance(value, dict),
    "examples": lambda value: isinstance(value, list),
    "seen": lambda value: isinstance(value, list) and all(isinstance(key, str) for key in value),
    "held_out": lambda value: (
        isinstance(value, list) and all(isinstance(key, str) for key in value)
    ),
}
"""What stands in those of this version, but not in older ones."""


def check_fits(
    state: dict[str, Any],
    parameters: list[torch.nn.Parameter],
    optimiser: str,
    folder: Path,
    structure: Structure | None = None,
) -> None:
    """Refuse a state of another network or optimiser, before anything is changed.

    Raises:
        TrainingStateError: which of them.
    """
    shapes = [tuple(p.shape) for p in parameters]
    if [tuple(p.shape) for p in state["parameters"]] != shapes:
        raise TrainingStateError(
            f"{folder} holds a run of a network with a different structure: use another folder, "
            "or the same structure"
        )

    if structure is not None and (other := difference(state.get("structure"), structure)):
        raise TrainingStateError(
            f"{folder} holds a run of a network with {other}: use another folder, or the same "
            "structure"
        )

    theirs = printable(state["optimiser_name"])
    if theirs != optimiser:
        raise TrainingStateError(
            f"{folder} holds a run with {theirs}, not {optimiser}: continue with that one, or "
            "use another folder"
        )


def check_gains(state: dict[str, Any], gains: str, folder: Path) -> None:
    """Refuse a state that was learned with gains where there are none, or the reverse.

    Raises:
        TrainingStateError: which of them.
    """
    theirs = "on" if state.get("gains") else "off"
    if theirs != gains:
        raise TrainingStateError(
            f"{folder} holds a run with gains {theirs}, not {gains}: continue with gains {theirs} "
            "(`gains`), or use another folder"
        )
