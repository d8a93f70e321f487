"""Starts the studio or the tests in the environment, so that signals reach them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

from . import environment, surroundings

FAST = "not slow and not browser and not webui and not comfyui and not cuda"
"""The tests that ``test --fast`` runs: about a minute on two cores."""

BY_FILE = ("--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder")
"""How several test processes share the tests: by file, in the order that ``tests/conftest.py`` put
them in; at most four processes, because each loads torch.
"""


def command(task: str, arguments: list[str]) -> list[str]:
    """The command line that ``install.py TASK ARGUMENTS`` runs."""
    if task == "studio":
        return [str(environment.python()), "-m", "hypernetworks", "studio", *arguments]
    is_fast = "--fast" in arguments
    if is_fast:
        arguments = ["-m", FAST, *(a for a in arguments if a != "--fast")]
    if _is_a_whole_run(arguments):
        # Tests that drive a browser mostly wait, so that one process more has work for all cores.
        processes = (os.cpu_count() or 1) + (not is_fast)
        arguments = ["-n", str(processes), *BY_FILE, *arguments]
    return [str(environment.python()), "-m", "pytest", *arguments]


def _is_a_whole_run(arguments: list[str]) -> bool:
    """Whether the arguments name no test, file or folder: few tests are faster in one process."""
    own = {"-n", "-k", "--pdb", "--collect-only", "--co", "--help", "-h"}
    return not any(
        argument in own or (environment.ROOT / argument.partition("::")[0]).exists()
        for argument in arguments
        if argument
    )


def start(line: list[str]) -> int:
    """Run a command in the project's folder; returns its exit code.

    On POSIX systems, this process becomes the command, which then gets every signal and the
    terminal as if it had been started directly. On Windows, this process waits for it.
    """
    variables = surroundings.clean(os.environ)
    os.chdir(environment.ROOT)
    # What is still in Python's buffers would be lost, or come after the command's own lines.
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execve(line[0], line, variables)
    return wait(line, variables)


def wait(line: list[str], variables: dict[str, str]) -> int:
    """Run a command and wait for its end.

    The console sends Ctrl+C to both processes. The first one is left to the child, the second one
    kills it. Ctrl+Break and a closed window reach the child too; SIGTERM is passed on.
    """
    child: subprocess.Popen[bytes] | None = None
    interrupts, is_over = 0, False

    def interrupted(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1 and child is not None:
            child.kill()

    def handed_on(number: int, frame: FrameType | None) -> None:
        nonlocal is_over
        is_over = True
        if child is not None:
            child.terminate()

    # Before there is a child: a signal that came in between would end this process alone.
    before = _handle({"SIGINT": interrupted, "SIGBREAK": interrupted, "SIGTERM": handed_on})
    try:
        child = subprocess.Popen(line, env=variables)
        if is_over:
            child.terminate()
        while True:
            try:
                return child.wait(timeout=0.2)  # without a limit, Windows delivers no signal
            except subprocess.TimeoutExpired:
                continue
    finally:
        _handle(before)


def _handle(handlers: Mapping[str, Any]) -> dict[str, Any]:
    """Set handlers by the names of signals that the system has; returns the previous ones."""
    return {
        name: signal.signal(getattr(signal, name), handler)
        for name, handler in handlers.items()
        if hasattr(signal, name)
    }
