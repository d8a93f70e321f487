"""One run at a time in a folder: a lock of the system's, which ends with the process that holds
it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import FileWriteError, TrainingStateError
from .checkpoints import make_folder

LOCK = "training.lock"
"""In a run's folder while it is trained.

Where a killed run leaves the file, it is locked no longer.
"""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process trains in this folder, which is made if need be; this also tells
    whether it is writable.

    Raises:
        TrainingStateError: another process trains in it.
        FileWriteError: the folder can't be written to.
    """
    is_new = not folder.exists()
    make_folder(folder)

    try:
        file = _taken(folder / LOCK)
        try:
            yield
        finally:
            if os.name != "nt":  # before it is released, or it might be another's by then
                _remove(folder / LOCK)
            file.close()
            if os.name == "nt":  # where an open file can't be removed
                _remove(folder / LOCK)
    finally:
        if is_new:
            with suppress(OSError):  # not empty, as a rule
                folder.rmdir()


def _taken(path: Path) -> IO[bytes]:
    """The file, open and locked."""
    while True:
        try:
            file = path.open("ab")
        except OSError as error:
            raise FileWriteError(
                f"{path.parent}: nothing can be written there ({error.strerror or error}): use "
                "another folder for runs, or change its permissions"
            ) from error

        if not _lock(file):
            file.close()
            raise TrainingStateError(
                f"{path.parent} is being trained by another process: wait for it, stop it, or "
                "use another name"
            )

        if _is_still_there(file, path):
            return file
        file.close()  # the run that held it has just ended, and removed it


def _is_still_there(file: IO[bytes], path: Path) -> bool:
    try:
        return os.name == "nt" or os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _lock(file: IO[bytes]) -> bool:
    """Whether the file is this process's now; where the system has no locks, as on some network
    drives, it is.
    """
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, (BlockingIOError, PermissionError))
    return True
