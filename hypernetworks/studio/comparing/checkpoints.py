"""The saved steps of training runs, as networks that a sheet can compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import HypernetworkError
from ...library import Library
from ...ui.training.runs import Runs


def steps_of(typed: str, folder: Path) -> tuple[str, tuple[Path, ...]]:
    """The networks that are meant by ``"NAME"`` (all saved steps of a run) or ``"NAME: 50, 100"``.

    Args:
        typed: one run.
        folder: of all runs.

    Returns:
        Their names with commas between, and the folder that they are in.

    Raises:
        HypernetworkError: there is no such run, or it has no such step.
    """
    runs = Runs(folder)
    name, _, numbers = typed.partition(":")
    run = next((one for one in runs.all() if one.name == name.strip()), None)
    if run is None:
        known = ", ".join(one.name for one in runs.all()[:10]) or "none yet"
        raise HypernetworkError(f'there is no run "{name.strip()}": the runs are {known}')

    words = [word for word in numbers.replace(",", " ").split() if word]
    # A step that was typed wrong is told now, not after the images of the others.
    wrong = next((word for word in words if word not in map(str, run.saved)), None)
    if wrong is not None:
        raise HypernetworkError(
            f'"{run.name}" has no saved step {wrong}: it has {", ".join(map(str, run.saved))}'
        )
    chosen = words or [str(step) for step in run.saved]
    return ", ".join(f'"{run.name}-{step}"' for step in chosen), (runs.path(run.name),)


def looking_in(library: Library, folders: Sequence[Path]) -> Library:
    """The library with further folders, which go first; itself where there are none."""
    if not folders:
        return library
    wider = Library([*folders, *library.folders])
    # Hashes of the same files are not computed again.
    wider.hashes = library.hashes
    return wider
