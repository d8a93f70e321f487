"""What a run's folder says of its settings, for people, for ``--config`` and for the run that goes
on.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ....errors import TrainingSettingsError
from ....files.writing import replace as replace_file
from ....training.checkpoints import MEASURED_SINCE, SETTINGS, STATE, make_folder
from .config import config_of
from .job import CONFIG, TrainingJob, throw_away

COMPARED = ("model", "pictures", "settings.seed", "settings.batch", "settings.accumulation")
"""What a run should continue as it began; the rest may well be changed on the way."""


def prepare(job: TrainingJob, model: str, checkpoint: Path | None, measured_since: int = 0) -> None:
    """Make the folder, and write the settings into it.

    Args:
        model: its name.
        checkpoint: where it was loaded from.
        measured_since: the last step whose validation loss can't be compared with later ones.

    Raises:
        FileWriteError: the system refuses.
    """
    # Only now that everything was checked is the earlier run deleted.
    if job.restart:
        throw_away(job)
    make_folder(job.folder)

    described = _described(job, model) | {MEASURED_SINCE: measured_since}
    text = json.dumps(described, indent=1, default=str) + "\n"
    for name, content in ((SETTINGS, text), (CONFIG, config_of(job, checkpoint))):
        _write(job.folder / name, content)


def _write(path: Path, text: str) -> None:
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _described(job: TrainingJob, model: str) -> dict[str, Any]:
    """All that the run is made of, for people and for :func:`differences`."""
    # Relative paths would mean something else when the run is continued from elsewhere.
    places = {name: str(getattr(job, name).resolve()) for name in ("pictures", "runs")}
    return {"model": model, **asdict(job), **places}


def differences(job: TrainingJob, model: str) -> list[str]:
    """Sentences about what is different from the run that is continued, where the folder still says
    what that was.

    Raises:
        TrainingSettingsError: another network to begin with, which would be ignored.
    """
    if job.restart or not (job.folder / STATE).exists():
        return []

    try:
        earlier = json.loads((job.folder / SETTINGS).read_text(encoding="utf-8"))
        begun = Path(earlier["network"] or "").name
        before = {what: _inside(earlier, what) for what in COMPARED}
    except (OSError, ValueError, KeyError, TypeError):
        return []

    if job.network is not None and job.network.name != begun:
        raise TrainingSettingsError(
            f"{job.folder} holds a run that did not start from {job.network.name}, which would "
            "be ignored: use another name, or start over (`restart`)"
        )
    now = _described(job, model)
    return [
        f"`{what.rpartition('.')[2]}` was {value} in earlier steps and is {asked} from here on"
        for what, value in before.items()
        if value != (asked := _inside(now, what))
    ]


def _inside(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree[key]
    return tree
