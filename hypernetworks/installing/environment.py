"""The virtual environment: made, looked at, made again when it is broken, and by one process at a
time.
"""

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

from ..console import say
from . import surroundings

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv"
LONGEST_ROOT = 64
"""Characters that Windows' limit of 260 leaves for the project's folder, given the longest path in
``.venv``.
"""


class SetUpError(Exception):
    """The set-up can't go on; the message says why and what to do."""


def python() -> Path:
    """The environment's interpreter."""
    return ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ask(code: str) -> str | None:
    """What the environment's Python prints for some code; ``None`` when it fails or can't be
    started.
    """
    try:
        done = subprocess.run(
            [str(python()), "-c", code],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            # not the project's folder, whose package would be found instead of the installed one
            cwd=ENVIRONMENT,
            env=surroundings.clean(os.environ),
        )
    except OSError:
        return None

    return done.stdout.strip() if done.returncode == 0 else None


def version() -> tuple[int, int] | None:
    """The Python version of the environment; ``None`` when it can't be started or isn't one of its
    own.
    """
    answer = ask("import sys; print(*sys.version_info[:2], sys.prefix != sys.base_prefix)")
    match = re.fullmatch(r"(\d+) (\d+) True", answer or "")
    return (int(match[1]), int(match[2])) if match else None


def make() -> None:
    """Make sure that there is an environment whose Python starts and has pip.

    Raises:
        SetUpError: it can't be made.
    """
    if version() is not None and _has_pip():
        return
    if ENVIRONMENT.exists() or ENVIRONMENT.is_symlink():
        say("  .venv is broken or incomplete: it is made again ...")
        remove()

    check_venv_module()
    try:
        code = create()
    except OSError as error:
        raise SetUpError(f"This Python can't be started ({error}): install it again.") from error
    if code or version() is None or not _has_pip():
        raise SetUpError(f"Making {ENVIRONMENT} failed{true_reason()}")


def create() -> int:
    """Run the ``venv`` module, free of the user's settings; returns its exit code."""
    line = [sys.executable, "-m", "venv", str(ENVIRONMENT)]
    return subprocess.call(line, env=surroundings.clean(os.environ))


def _has_pip() -> bool:
    """Whether pip works; brought back once where it is missing (an interrupted set-up, or uv's
    environments).
    """
    if ask("import pip") is not None:
        return True
    return ask("import ensurepip; ensurepip.bootstrap(upgrade=True)") is not None and (
        ask("import pip") is not None
    )


def remove() -> None:
    """Take a broken environment away; a link only says so, since what it leads to is not ours.

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
            f"{ENVIRONMENT} is broken and can't be removed ({error.strerror}): close the programs that use it, "
            "then run the command again."
        ) from error


def check_venv_module() -> None:
    """Say what is missing for making an environment.

    Raises:
        SetUpError: this Python has no ``venv`` or no ``ensurepip``.
    """
    missing = [name for name in ("venv", "ensurepip") if find_spec(name) is None]
    if not missing:
        return

    if shutil.which("apt-get"):
        what = f"`sudo apt install python3.{sys.version_info[1]}-venv` brings it."
    elif os.name == "nt":
        what = "it is an embedded one: install Python from python.org or the Microsoft Store."
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
            f"An environment can't be in a folder whose path has {os.pathsep!r} in it: move or rename {ROOT}."
        )
    if not _writable(ROOT):
        raise SetUpError(f"{ROOT} can't be written to: copy the project to a folder of your own.")

    if os.name == "nt" and len(str(ROOT)) > LONGEST_ROOT and not _long_paths():
        say(
            f"Warning: {ROOT} is longer than {LONGEST_ROOT} characters, and Windows refuses paths above 260: if the "
            "set-up fails, move the project to a shorter path or switch long paths on.",
            sys.stderr,
        )


def _writable(folder: Path) -> bool:
    """By trying: permission bits say nothing on Windows, network drives and read-only mounts."""
    temporary = folder / f".write-test-{os.getpid()}.tmp"
    try:
        temporary.touch()
    except PermissionError:
        return False
    except OSError as error:
        # A full disk or a used-up quota can be written to once there is room; check_space names it.
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
    """Refuse a disk that is too full.

    Args:
        needed: GiB.

    Raises:
        SetUpError: less is free.
    """
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < needed:
        raise SetUpError(
            f"The disk of {ROOT} has {free:.1f} GiB free, and the set-up needs about {needed:.0f}: make room, then "
            "run the command again."
        )


def true_reason() -> str:
    """What else is wrong after a step failed: the end of a sentence."""
    for place, what in (
        (ROOT, "the project's disk"),
        (_temporary_folder(), "the temporary folder's disk"),
    ):
        free = shutil.disk_usage(place).free / 2**20
        if free < 500:
            return f": {what} is full ({free:.0f} MiB free). Make room, then run the command again."
    return ". The lines above say why; run the command again to go on."


def _temporary_folder() -> str:
    import tempfile

    try:
        return tempfile.gettempdir()
    except OSError:  # none can be written to
        return str(ROOT)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One set-up at a time; another one waits.

    The lock goes with its process, however that ends.
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
    """Lock a file; file systems that have no locks are used without."""
    if sys.platform == "win32":
        import msvcrt
        import time

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
