"""``python install.py studio`` and ``python install.py test``, from their arguments to the started
program.
"""

from __future__ import annotations

import os
import sys

from .. import __version__
from ..console import say
from . import environment, machine, packages, starting, wheels
from .environment import SetUpError

USAGE = """usage: python install.py studio [--torch WHICH] [--port N] [--no-browser] [...]
       python install.py test [--torch WHICH] [--fast] [...]
       python install.py --version

--torch WHICH   replace torch by: cpu, cu126, cu128, cu130, rocm, xpu, pypi, a wheel, a folder of wheels or the
                address of an index (or set HYPERNETWORKS_TORCH); without it a torch that works is kept, and one
                that fits this machine is chosen otherwise
--fast          only the tests that take under a minute"""


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
        wish, rest = split(arguments[1:])
        prepare(task, wish)
    except SetUpError as error:
        say(f"\n{error}", sys.stderr)
        return 2
    except OSError as error:
        say(f"\nThe set-up failed: {error}{environment.true_reason()}", sys.stderr)
        return 2
    except KeyboardInterrupt:
        say("\nInterrupted: run the command again to go on.", sys.stderr)
        return 130
    return starting.start(starting.command(task, rest))


def split(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Take ``--torch WHICH`` out of the arguments; a variable stands in for it.

    Raises:
        SetUpError: what it asks for does not exist.
    """
    wish = os.environ.get("HYPERNETWORKS_TORCH") or None
    rest = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--torch":
            wish = next(remaining, "")
        elif argument.startswith("--torch="):
            wish = argument.partition("=")[2]
        else:
            rest.append(argument)

    if wish is not None:
        try:
            wheels.asked(wish)
        except ValueError as error:
            raise SetUpError(str(error)) from error
    return wish, rest


def prepare(task: str, wish: str | None) -> None:
    """Make the environment and install, unless that was done before.

    Raises:
        SetUpError: a step failed.
    """
    if packages.ready(task) and packages.has(wish):
        return

    _check()
    with environment.alone():
        if packages.ready(task) and packages.has(wish):  # another process did it meanwhile
            return
        say("Setting up (once, a few minutes) ...")
        environment.make()
        packages.install(task, wish)


def _check() -> None:
    """What can be known before anything is made or downloaded."""
    environment.check_folder()
    if environment.version() is None:
        environment.check_venv_module()
        reason = wheels.impossible(machine.describe())
        if reason is not None:
            raise SetUpError(reason)
