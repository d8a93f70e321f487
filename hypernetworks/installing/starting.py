"""Starting the studio or the tests in the environment, so that signals reach them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

from . import environment, surroundings

FAST = "not slow and not browser and not webui and not cuda"
"""The tests of ``test --fast``: under a minute."""

PARALLEL = [
    *("-n", "auto", "--maxprocesses", "4"),
    *("--dist", "loadfile", "--no-loadscope-reorder"),  # tests/conftest.py has put long files first
]
"""Options of a whole run: a process for each core, up to four, since each of them loads torch."""


def command(task: str, arguments: list[str]) -> list[str]:
    """What is run for ``install.py TASK ARGUMENTS``."""
    if task == "studio":
        return [str(environment.python()), "-m", "hypernetworks", "studio", *arguments]
    if "--fast" in arguments:
        arguments = ["-m", FAST, *(a for a in arguments if a != "--fast")]
    if _is_a_whole_run(arguments):
        arguments = [*PARALLEL, *arguments]
    return [str(environment.python()), "-m", "pytest", *arguments]


def _is_a_whole_run(arguments: list[str]) -> bool:
    """Whether no test, file or folder is named: for a few tests more processes only cost time."""
    own = {"-n", "-k", "--pdb", "--collect-only", "--co", "--help", "-h"}
    return not any(
        argument in own or (environment.ROOT / argument.partition("::")[0]).exists()
        for argument in arguments
        if argument
    )


def start(line: list[str]) -> int:
    """Run it in the project's folder; returns its exit code.

    Where a process can become another one it does, so that every signal and the terminal are the
    command's own, as without ``install.py``. Windows can't do that; there this process waits.
    """
    variables = surroundings.clean(os.environ)
    os.chdir(environment.ROOT)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execve(line[0], line, variables)
    return wait(line, variables)


def wait(line: list[str], variables: dict[str, str]) -> int:
    """Run a command and outlive it: the first Ctrl+C is the child's (the console gives it to both),
    the second kills.

    Ctrl+Break and a closed window reach the child by themselves, too; SIGTERM is handed on.
    """
    child = subprocess.Popen(line, env=variables)
    interrupts = 0

    def interrupted(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            child.kill()

    def handed_on(number: int, frame: FrameType | None) -> None:
        child.terminate()

    before = _handle({"SIGINT": interrupted, "SIGBREAK": interrupted, "SIGTERM": handed_on})
    try:
        while True:
            try:
                return child.wait(timeout=0.2)  # Windows hears no signal during an unlimited wait
            except subprocess.TimeoutExpired:
                continue
    finally:
        _handle(before)


def _handle(handlers: Mapping[str, Any]) -> dict[str, Any]:
    """Set handlers by the signals' names, where the system has them; returns those before."""
    return {
        name: signal.signal(getattr(signal, name), handler)
        for name, handler in handlers.items()
        if hasattr(signal, name)
    }
