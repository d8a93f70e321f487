"""The studio's temporary folder, and those of studios that were killed before they could take
theirs away.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PREFIX = "hypernetworks-studio-"
ALIVE = "alive.lock"
"""In the folder; locked as long as its studio lives, since the system gives locks of the dead free.
"""
_YOUNGEST = 60.0
"""Seconds; a folder may be so young that its lock isn't there yet."""
_ABANDONED = 86400.0
"""Seconds after which a folder without such a file (of an earlier version) is nobody's."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for this studio's run, which goes with it.

    First, those that killed studios have left go.
    """
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    file = (folder / ALIVE).open("wb")
    try:
        _lock(file)
        yield folder
    finally:
        file.close()  # Windows deletes no open files
        shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Take away the temporary folders of this user's studios that live no longer."""
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as items:
        for item in items:
            if item.name.startswith(PREFIX):
                with suppress(OSError):
                    if _is_left(item):
                        shutil.rmtree(item.path, ignore_errors=True)


def _is_left(item: os.DirEntry[str]) -> bool:
    status = item.stat(follow_symlinks=False)
    is_ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    age = time.time() - status.st_mtime
    if not stat.S_ISDIR(status.st_mode) or not is_ours or age < _YOUNGEST:
        return False

    try:
        with (Path(item.path) / ALIVE).open("rb+") as file:
            return _lock(file)
    except FileNotFoundError:
        return age > _ABANDONED


def _lock(file: IO[bytes]) -> bool:
    """Lock a file until it is closed; ``False`` where another process has."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
