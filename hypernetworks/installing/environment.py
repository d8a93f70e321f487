"""The virtual environment: made, checked, replaced if it is broken, by one process at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from ..console import say, warn
from . import surroundings

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv"
LONGEST_ROOT = 64
"""Characters of the project folder's path: Windows allows 260 for the longest path in ``.venv``."""


class SetUpError(Exception):
    """The set-up can't go on; the message says why and what to do."""


def python() -> Path:
    """The environment's interpreter."""
    return ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ask(code: str) -> str | None:
    """Run code in the environment's Python.

    Returns:
        What it prints; ``None`` if it fails or can't be started.
    """
    try:
        done = subprocess.run(
            [str(python()), "-c", code],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            # Not the project's folder: Python would import its package, not the installed one.
            cwd=ENVIRONMENT,
            env=surroundings.clean(os.environ),
        )
    except OSError:
        return None

    return done.stdout.strip() if done.returncode == 0 else None


def version() -> tuple[int, int] | None:
    """The environment's Python version; ``None`` if it can't be started, or is the system's."""
    answer = ask("import sys; print(*sys.version_info[:2], sys.prefix != sys.base_prefix)")
    match = re.fullmatch(r"(\d+) (\d+) True", answer or "")
    return (int(match[1]), int(match[2])) if match else None


def make() -> None:
    """Make the environment, unless there is one whose Python starts and has pip.

    Raises:
        SetUpError: it can't be made.
    """
    if version() is not None and _has_pip():
        return
    if ENVIRONMENT.exists() or ENVIRONMENT.is_symlink():
        say("  .venv is broken or incomplete: making it again ...")
        remove()

    check_venv_module()
    try:
        code = create()
    except OSError as error:
        raise SetUpError(f"This Python can't be started ({error}): install it again.") from error
    if code or version() is None or not _has_pip():
        raise SetUpError(f"Making {ENVIRONMENT} failed{true_reason()}")


def create() -> int:
    """Run the ``venv`` module without the user's settings; returns its exit code."""
    line = [sys.executable, "-m", "venv", str(ENVIRONMENT)]
    return subprocess.call(line, env=surroundings.clean(os.environ))


def _has_pip() -> bool:
    """Whether pip works; if it is missing, ``ensurepip`` installs it."""
    if ask("import pip") is not None:
        return True
    # An interrupted set-up leaves no pip, and neither does uv when it makes an environment.
    return ask("import ensurepip; ensurepip.bootstrap(upgrade=True)") is not None and (
        ask("import pip") is not None
    )


def remove() -> None:
    """Remove a broken environment. A link is only reported: its target isn't ours.

    Raises:
        SetUpError: it can't be removed.
    """
    if ENVIRONMENT.is_symlink():
        raise SetUpError(
            f"{ENVIRONMENT} is a link to an environment that does not work: remove the link."
        )

    try:
        shutil.rmtree(ENVIRONMENT) if ENVIRONMENT.is_dir() else ENVIRONMENT.unlink()
    except OSError as error:
        raise SetUpError(
            f"{ENVIRONMENT} is broken and can't be removed ({error.strerror}): close the "
            "programs that use it, then run the command again."
        ) from error


def check_venv_module() -> None:
    """Report what this Python lacks for making an environment.

    Raises:
        SetUpError: this Python has no ``venv`` or no ``ensurepip``.
    """
    missing = [name for name in ("venv", "ensurepip") if find_spec(name) is None]
    if not missing:
        return

    if shutil.which("apt-get"):
        what = f"install it with `sudo apt install python3.{sys.version_info[1]}-venv`."
    elif os.name == "nt":
        what = "it is the embeddable one. Install Python from python.org or the Microsoft Store."
    else:
        what = "install a complete Python."
    raise SetUpError(f"This Python has no {' and no '.join(missing)}: {what}")


def check_folder() -> None:
    """Refuse a folder in which an environment can't be made, before anything is downloaded.

    Raises:
        SetUpError: it can't hold one.
    """
    if os.pathsep in str(ROOT):
        raise SetUpError(
            f"The path of the project's folder contains {os.pathsep!r}, which no environment's "
            f"path may contain: move or rename {ROOT}."
        )
    if not _writable(ROOT):
        raise SetUpError(f"{ROOT} isn't writable: copy the project to a folder of your own.")

    if os.name == "nt" and len(str(ROOT)) > LONGEST_ROOT and not _long_paths():
        warn(
            f"Warning: the path {ROOT} has more than {LONGEST_ROOT} characters. Windows refuses "
            "paths of more than 260. If the set-up fails, move the project to a shorter path, or "
            "enable long paths."
        )


def _writable(folder: Path) -> bool:
    """Whether a file can be made there, by trying.

    Permission bits mean nothing on Windows, on network drives and on read-only mounts.
    """
    temporary = folder / f".write-test-{os.getpid()}.tmp"
    try:
        temporary.touch()
    except PermissionError:
        return False
    except OSError as error:
        # A full disk is writable once there is room; check_space reports it.
        return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
    temporary.unlink(missing_ok=True)
    return True


def _long_paths() -> bool:
    """Whether Windows' limit of 260 characters is lifted."""
    if sys.platform != "win32":
        return True
    import winreg

    key = r"SYSTEM\CurrentControlSet\Control\FileSystem"
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:
            return bool(winreg.QueryValueEx(opened, "LongPathsEnabled")[0])
    except OSError:
        return False


def check_space(needed: float) -> None:
    """Check that the disk has enough room.

    Args:
        needed: GiB.

    Raises:
        SetUpError: less is free.
    """
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < needed:
        raise SetUpError(
            f"The disk of {ROOT} has {free:.1f} GiB free, and the set-up needs about "
            f"{needed:.0f}: make room, then run the command again."
        )


def true_reason() -> str:
    """The end of the sentence that reports a failed step: a full disk, if that is the cause."""
    for place, what in (
        (ROOT, "the project's disk"),
        (_temporary_folder(), "the temporary folder's disk"),
    ):
        free = shutil.disk_usage(place).free / 2**20
        if free < 500:
            return f": {what} is full ({free:.0f} MiB free). Make room, then run the command again."
    return ". The lines above say why. Run the command again to continue."


def _temporary_folder() -> str:
    import tempfile

    try:
        return tempfile.gettempdir()
    except OSError:  # none can be written to
        return str(ROOT)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let one set-up run at a time; another one waits.

    The system releases the lock when the process ends, even if it is killed.
    """
    with (ROOT / ".venv.lock").open("a") as file:  # noqa: SIM117 - the lock is held while it is open
        with _locked(file):
            yield


@contextlib.contextmanager
def _locked(file: IO[str]) -> Iterator[None]:
    try:
        _lock(file, wait=False)
    except BlockingIOError:
        say("  another set-up is running in this folder: waiting for it ...")
        _lock(file, wait=True)
    yield  # closing the file ends the lock


def _lock(file: IO[str], wait: bool) -> None:
    """Lock a file; on a file system without locks, do without."""
    if sys.platform == "win32":
        import msvcrt
        import time

        # msvcrt's own blocking lock gives up after ten seconds, so this one asks again and again.
        while True:
            try:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except PermissionError as error:
                if not wait:
                    raise BlockingIOError from error
                time.sleep(0.5)
            else:
                return
    else:
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:
            return
