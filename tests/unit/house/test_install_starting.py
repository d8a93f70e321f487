"""Signals and exit codes go through ``install.py`` as if it were not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hypernetworks.installing import starting

ROOT = Path(__file__).parents[3]
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
SAVES = """
import signal, sys, time
def save(number, frame):
    print("saving", flush=True)
    time.sleep(0.5)
    print("saved", flush=True)
    sys.exit(5)
signal.signal(signal.SIGINT, save); signal.signal(signal.SIGTERM, save); signal.signal(signal.SIGHUP, save)
print("ready", flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def through(function: str, program: str) -> subprocess.Popen[str]:
    """A session of its own, in which ``install.py``'s last step runs a program; returned when that
    is ready.
    """
    call = {
        "start": "starting.start([sys.executable, '-c', program])",
        "wait": "starting.wait([sys.executable, '-c', program], dict(os.environ))",
    }[function]
    code = (
        f"import os, sys; from hypernetworks.installing import starting; program = {program!r}; "
        f"sys.exit({call})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@POSIX
@pytest.mark.parametrize("function", ["start", "wait"])
def test_ctrl_c_waits_until_the_child_has_saved(function: str) -> None:
    process = through(function, SAVES)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    assert process.communicate(timeout=30)[0] == "saving\nsaved\n"
    assert process.returncode == 5


@POSIX
def test_the_second_ctrl_c_kills() -> None:
    process = through("wait", STUBBORN)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode not in (0, None)


@POSIX
@pytest.mark.parametrize(
    ("function", "name"), [("start", "SIGTERM"), ("start", "SIGHUP"), ("wait", "SIGTERM")]
)
def test_a_signal_to_install_py_alone_reaches_the_child(function: str, name: str) -> None:
    process = through(function, SAVES)
    os.kill(process.pid, getattr(signal, name))
    assert process.communicate(timeout=30)[0] == "saving\nsaved\n"
    assert process.returncode == 5


@POSIX
def test_a_signal_while_the_child_starts_ends_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended ``install.py`` alone, and what it had started went on."""
    really = subprocess.Popen

    def slowly(*arguments: Any, **named: Any) -> subprocess.Popen[bytes]:
        os.kill(os.getpid(), signal.SIGTERM)  # before there is a child to hand it on to
        return really(*arguments, **named)

    monkeypatch.setattr(starting.subprocess, "Popen", slowly)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # or this process would end
    try:
        line = [sys.executable, "-c", "import time; time.sleep(60)"]
        assert starting.wait(line, dict(os.environ)) == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_exit_code_is_the_childs() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert starting.wait([sys.executable, "-c", "raise SystemExit(7)"], dict(os.environ)) == 7
    assert signal.getsignal(signal.SIGINT) is before  # put back


def test_the_fast_ring() -> None:
    assert starting.command("test", ["--fast", "-x"])[1:] == [
        "-m",
        "pytest",
        *("-n", str(os.cpu_count()), *starting.BY_FILE),
        "-m",
        "not slow and not browser and not webui and not comfyui and not cuda",
        "-x",
    ]
    assert starting.command("studio", ["--port", "1"])[1:] == [
        "-m",
        "hypernetworks",
        "studio",
        "--port",
        "1",
    ]


@pytest.mark.parametrize(
    ("arguments", "parallel"),
    [
        ([], True),
        (["-m", "slow"], True),
        (["tests/unit/prompts"], False),
        (["tests/unit/house/test_install_starting.py::test_the_fast_ring"], False),
        (["-k", "ring"], False),
        (["-n", "0"], False),
        (["--help"], False),
    ],
)
def test_whole_runs_take_several_processes(arguments: list[str], parallel: bool) -> None:
    line = starting.command("test", arguments)
    assert ("--maxprocesses" in line) is parallel
    assert (str((os.cpu_count() or 1) + 1) in line) is parallel, "one more than there are cores"
