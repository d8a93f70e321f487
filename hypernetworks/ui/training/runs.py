"""The runs that a studio has made: what each has learned, and how it goes on without its fields
being filled in again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import FileWriteError, HypernetworkError, TrainingSettingsError
from ...files import moving
from ...files.naming import is_text
from ...files.writing import replace
from ...library import Library
from ...training.checkpoints import MEASURED_SINCE, SETTINGS, STATE, saved_networks
from ...training.creation import check_name
from ...training.records import read_log
from .values import FormValues

FORM = "form.json"
"""In a run's folder: the fields of the Train tab that began or continued it."""
TRASH = "trash"
MOST_RUNS, MOST_SHOWN = 200, 24
"""Runs in the list, and networks of one of them to choose from."""
_SUFFIXES = (".safetensors", ".pt")


@dataclass(frozen=True)
class Run:
    """A run as the page shows it.

    Attributes:
        step: the last one.
        best_step, best_loss: of the lowest validation loss, where that was measured, as it is
            measured now.
        saved: steps whose network is a file, rising.
        can_go_on: its fields and its state are there.
    """

    name: str
    step: int
    best_step: int | None
    best_loss: float | None
    saved: list[int]
    has_preview: bool
    can_go_on: bool


def remember(values: FormValues, folder: Path) -> None:
    """Save the fields of a run in its folder.

    Raises:
        FileWriteError: they can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileWriteError(
            f"the folder of the run can't be made ({error.strerror or error})"
        ) from error
    text = json.dumps(asdict(values), indent=1)
    replace(folder / FORM, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def remembered(folder: Path) -> FormValues:
    """The fields that :func:`remember` has saved.

    Raises:
        TrainingSettingsError: there are none, or the file was changed.
    """
    try:
        found = json.loads((folder / FORM).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingSettingsError(
            f'the settings of "{folder.name}" are not known: continue it with the fields below, '
            "under the same name"
        ) from error

    known = {field.name: getattr(FormValues, field.name) for field in fields(FormValues)}
    given = found if isinstance(found, dict) else {}
    plain = (str, int, float, bool, type(None))
    kept: dict[str, Any] = {
        name: value for name, value in given.items() if name in known and isinstance(value, plain)
    }
    return FormValues(**kept)


class Runs:
    """The folder of runs; each name that comes from a page is checked here.

    Args:
        folder: of all runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[Run]:
        """The runs, the latest first."""
        try:
            names = [name for name in os.listdir(self.folder) if is_text(name) and _is_name(name)]
        except OSError:
            return []
        found = [(path, _changed(path)) for name in names if _is_run(path := self.folder / name)]
        found.sort(key=lambda one: one[1], reverse=True)
        return [_seen(path) for path, _ in found[:MOST_RUNS]]

    def path(self, name: str) -> Path:
        """The folder of a run.

        Raises:
            HypernetworkError: there is none of that name.
        """
        path = self.folder / name
        if not _is_name(name) or not _is_run(path):
            raise HypernetworkError("there is no such run any more: reload the page")
        return path

    def preview(self, name: str) -> Path | None:
        """The last preview of a run's first prompt."""
        try:
            path = self.path(name)
        except HypernetworkError:
            return None
        found = sorted((path / "previews").glob("1-[0-9]*.png"))
        is_file = bool(found) and stat.S_ISREG(os.lstat(found[-1]).st_mode)
        return found[-1] if is_file else None

    def keep(self, name: str, step: int, library: Library, folder: Path | None) -> str:
        """Put the network of a step into the library, as ``NAME-STEP``; nothing is replaced.

        Returns:
            What tags call it.

        Raises:
            HypernetworkError: there is no such file, or it can't be kept.
        """
        if folder is None:
            raise FileWriteError(
                "there is no folder to save the network in: start with --hypernetworks FOLDER"
            )
        source = _networks(self.path(name)).get(step)
        if source is None:
            raise HypernetworkError(f'"{name}" has no network of step {step} any more')

        target = folder / source.name
        if target.exists():
            raise FileWriteError(f"{target.name} is in the library already")
        preview = self.path(name) / "previews" / f"1-{step:06d}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace(target, lambda temporary: shutil.copyfile(source, temporary))
            if preview.is_file():
                image = target.with_suffix(".png")
                replace(image, lambda temporary: shutil.copyfile(preview, temporary))
        except OSError as error:
            raise FileWriteError(
                f"{target.name} can't be saved in the library ({error.strerror or error})"
            ) from error
        library.scan()
        return library.name_of(library.find(target.stem))

    def discard(self, name: str) -> None:
        """Move a run into the folder ``trash`` beside the runs.

        Raises:
            HypernetworkError: there is no such run, or it can't be moved.
        """
        path = self.path(name)
        trash = self.folder.parent / TRASH

        try:
            trash.mkdir(parents=True, exist_ok=True)
            moving.move(path, moving.free(trash / name))
        except OSError as error:
            raise FileWriteError(
                f'"{name}" can\'t be moved to {TRASH} ({error.strerror or error})'
            ) from error


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except TrainingSettingsError:
        return False
    return True


def _is_run(path: Path) -> bool:
    """A folder itself, no link to one, with a run in it."""
    try:
        is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False
    return is_folder and ((path / STATE).is_file() or (path / "log.csv").is_file())


def _changed(path: Path) -> float:
    try:
        return (path / "log.csv").stat().st_mtime
    except OSError:
        return 0.0


def _networks(path: Path) -> dict[int, Path]:
    """Files of a run's networks by their step."""
    found = [file for suffix in _SUFFIXES for file in saved_networks(path, path.name, suffix)]
    return {int(match[1]): file for file in found if (match := re.search(r"-(\d+)$", file.stem))}


def _seen(path: Path) -> Run:
    rows = read_log(path / "log.csv")
    since = _measured_since(path)
    measured = [row for row in rows if row["validation"] is not None and row["step"] > since]
    best: dict[str, Any] | None = min(measured, key=lambda row: row["validation"], default=None)
    return Run(
        path.name,
        rows[-1]["step"] if rows else 0,
        best["step"] if best else None,
        best["validation"] if best else None,
        sorted(_networks(path))[-MOST_SHOWN:],
        any((path / "previews").glob("1-[0-9]*.png")),
        (path / FORM).is_file() and (path / STATE).is_file(),
    )


def _measured_since(path: Path) -> int:
    """The last step of a run whose validation loss can't be compared with later ones."""
    try:
        settings = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return 0
    found = settings.get(MEASURED_SINCE) if isinstance(settings, dict) else None
    return found if isinstance(found, int) else 0
