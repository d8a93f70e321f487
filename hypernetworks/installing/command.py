"""``python install.py studio`` and ``python install.py test``: arguments, set-up, start."""

from __future__ import annotations

import os
from pathlib import Path

from .. import __version__
from ..console import say, warn
from . import environment, machine, packages, starting, wheels
from .environment import SetUpError

USAGE = """usage: python install.py studio [--torch WHICH] [--port N] [--no-browser] [...]
       python install.py test [--torch WHICH] [--fast] [...]
       python install.py --version

--torch WHICH   replace torch with: cpu, cu126, cu128, cu130, rocm, xpu, pypi, a wheel, a folder
                of wheels, or the address of an index. HYPERNETWORKS_TORCH does the same. By
                default, a torch that works is kept; otherwise one that fits this machine is
                installed.
--fast          run only the fast tests: about a minute"""


def main(arguments: list[str]) -> int:
    """Do what the first argument says; returns the exit code."""
    task = arguments[0]
    if task == "--version":
        say(f"hypernetworks {__version__}")
        return 0
    if task not in packages.EXTRAS:
        say(USAGE)
        return 0 if task in ("-h", "--help") else 2

    try:
        requested, rest = split(arguments[1:])
        prepare(task, requested)
    except SetUpError as error:
        warn(f"\n{error}")
        return 2
    except OSError as error:
        warn(f"\nThe set-up failed: {error}{environment.true_reason()}")
        return 2
    except KeyboardInterrupt:
        warn("\nInterrupted. Run the command again to continue.")
        return 130

    return starting.start(starting.command(task, rest))


def split(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Separate ``--torch WHICH``, or the variable with the same meaning, from the other arguments.

    Raises:
        SetUpError: there is no such torch.
    """
    requested = os.environ.get("HYPERNETWORKS_TORCH") or None
    rest = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--torch":
            requested = next(remaining, "")
        elif argument.startswith("--torch="):
            requested = argument.partition("=")[2]
        else:
            rest.append(argument)

    if requested is not None:
        requested = _absolute(requested)
        try:
            wheels.asked(requested)
        except ValueError as error:
            raise SetUpError(str(error)) from error
    return requested, rest


def _absolute(requested: str) -> str:
    """The name of a build in lower case, or the whole path of a wheel or folder.

    pip runs in the project's folder, and the user may be in another.

    Raises:
        SetUpError: there is nothing at the path.
    """
    if requested.lower() in (*wheels.BUILDS, "pypi"):
        return requested.lower()
    if not requested or "://" in requested:
        return requested

    path = Path(requested).expanduser()
    if path.exists():
        return str(path.absolute())
    # Said now, not by pip when the environment is made.
    if path.suffix == ".whl" or "/" in requested or "\\" in requested:
        raise SetUpError(f"--torch: there is no file or folder {path.absolute()}.")
    return requested


def prepare(task: str, requested: str | None) -> None:
    """Make the environment and install the packages, unless that was done before.

    Raises:
        SetUpError: a step failed.
    """
    if packages.ready(task) and packages.has(requested):
        return

    _check()
    with environment.alone():
        if packages.ready(task) and packages.has(requested):  # another process did it meanwhile
            return
        say("Setting up (only once; takes a few minutes) ...")
        environment.make()
        packages.install(task, requested)


def _check() -> None:
    """Report problems that are known before anything is made or downloaded."""
    environment.check_folder()
    if environment.version() is None:
        environment.check_venv_module()
        reason = wheels.impossible(machine.describe())
        if reason is not None:
            raise SetUpError(reason)
