"""The state of a run in its folder: network files named after finished steps, and one file to
resume from.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..engine.network import Hypernetwork
from ..errors import FileError, FileWriteError, TrainingStateError, printable
from ..files import write
from ..files.naming import composed
from ..files.torch_files import read_plain
from ..files.writing import replace as replace_file

STATE = "state.pt"
"""Everything that resuming needs: weights, optimiser, scaler, average and step."""
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
    path = folder / f"{network.name}-{network.provenance.step}{suffix}"
    write(network, path)
    return path


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
            f"{folder / STATE} was written by another version: finish that run with that version, or delete the file"
        )
    if not all(fits(state.get(key)) for key, fits in _KINDS.items()):
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


def check_fits(
    state: dict[str, Any], parameters: list[torch.nn.Parameter], optimiser: str, folder: Path
) -> None:
    """Refuse a state of another network or optimiser, before anything is changed.

    Raises:
        TrainingStateError: which of them.
    """
    shapes = [tuple(p.shape) for p in parameters]
    if [tuple(p.shape) for p in state["parameters"]] != shapes:
        raise TrainingStateError(
            f"{folder} holds a run of a network with a different structure: use another folder, or the same structure"
        )

    theirs = printable(state["optimiser_name"])
    if theirs != optimiser:
        raise TrainingStateError(
            f"{folder} holds a run with {theirs}, not {optimiser}: continue with that one, or use another folder"
        )
