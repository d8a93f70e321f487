"""From a run's folder into the library, without replacing what is not this run's own."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from ...errors import FileWriteError, UnknownNameError
from ...files.writing import replace
from ...library import Library
from ...training.checkpoints import MARK


class Published(Protocol):
    """What has to be known of a run: its network's name and format, and its folder."""

    @property
    def name(self) -> str:
        """Of the network."""

    @property
    def suffix(self) -> str:
        """Of its file."""

    @property
    def restart(self) -> bool:
        """Whether it begins anew."""

    @property
    def folder(self) -> Path:
        """Of the run."""


def check_free(job: Published, library: Library, folder: Path | None, may_replace: bool) -> bool:
    """Whether a network of the job's name may be replaced in the end, which is so when it is of the
    same run.

    Raises:
        FileWriteError: the name is taken, or there is no folder for it.
    """
    if folder is None:
        raise FileWriteError(
            "there is no folder to save the network in: start with --hypernetworks FOLDER"
        )

    library.scan()
    try:
        found = library.find(job.name).path
    except UnknownNameError:
        return may_replace
    target = folder / f"{job.name}{job.suffix}"
    if found != target:
        raise FileWriteError(
            f'"{job.name}" is in the library already ({found.name}): choose another name'
        )
    if may_replace or (not job.restart and _is_own(target, job.folder)):
        return True

    raise FileWriteError(
        f'"{job.name}" is in the library already: choose another name, or tick "Replace"'
    )


def _is_own(target: Path, run: Path) -> bool:
    try:
        return (run / MARK).read_text(encoding="utf-8") == sha256(target.read_bytes()).hexdigest()
    except (OSError, UnicodeDecodeError):
        return False


def publish(job: Published, file: Path, library: Library, folder: Path, may_replace: bool) -> str:
    """Put a run's file into the library, with its last preview beside it.

    Returns:
        What tags call it.

    Raises:
        FileWriteError: it can't be written, or the name was taken meanwhile.
    """
    target = folder / f"{job.name}{job.suffix}"
    if target.exists() and not may_replace:
        raise FileWriteError(
            f"{target.name} appeared in the library meanwhile: the network is in the run's "
            f"folder ({job.folder.name})"
        )

    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace(target, lambda temporary: shutil.copyfile(file, temporary))
        mark = sha256(target.read_bytes()).hexdigest()
        replace(job.folder / MARK, lambda temporary: temporary.write_text(mark, encoding="utf-8"))
        found = (job.folder / "previews").glob("1-*.png")
        # That of step 0 shows the model without the network, which would mislead on its card.
        previews = sorted((path for path in found if _step_of(path) > 0), key=_step_of)
        if previews:
            replace(
                target.with_suffix(".png"),
                lambda temporary: shutil.copyfile(previews[-1], temporary),
            )
    except OSError as error:
        raise FileWriteError(
            f"{target.name} can't be saved in the library ({error.strerror or error}); "
            f"it is in the run's folder ({job.folder.name})"
        ) from error

    library.scan()
    return library.name_of(library.find(job.name))


def _step_of(preview: Path) -> int:
    """The step in a preview's name, such as 25 of ``1-25.png``: names sort otherwise."""
    step = preview.stem.rpartition("-")[2]
    return int(step) if step.isdigit() else -1
