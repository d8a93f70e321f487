"""Windows, emulated: what it refuses, encodes and signals otherwise, module by module.

``os.name`` can't be changed for all of Python, so that a module gets an ``os`` of its own.
"""

from __future__ import annotations

import ast
import errno
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from hypernetworks.cli import train as train_command
from hypernetworks.errors import FileWriteError, TrainingStateError
from hypernetworks.files import moving, writing
from hypernetworks.installing import starting, surroundings
from hypernetworks.training import locking, processes

ROOT = Path(__file__).parents[3]


class _Other:
    """A module with some attributes of another system."""

    def __init__(self, module: ModuleType, **own: Any) -> None:
        self._module = module
        vars(self).update(own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def as_windows(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """Let a module believe that it runs on Windows."""
    monkeypatch.setattr(module, "os", _Other(os, name="nt"))


def refused(*_: object) -> None:
    raise PermissionError(errno.EACCES, "Access is denied")


# ------------------------------------------------------------------ consoles


def test_every_line_goes_through_the_console_that_never_raises() -> None:
    """A redirected output of Windows is cp1252, in which ``print`` raises for a Cyrillic path."""
    found = []
    for path in sorted((ROOT / "hypernetworks").rglob("*.py")):
        if "miniature" in path.parts:  # tools for whoever builds it
            continue
        text = path.read_text(encoding="utf-8")
        if not re.search(r"\b(print|input)\b", text):  # reading it as a tree takes far longer
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Name) and node.id in ("print", "input"):
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


def test_a_finished_training_is_told_whatever_its_name_is(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    outcome: Any = SimpleNamespace(best=None, result=Path("runs") / "стиль" / "стиль-best.pt")
    train_command._print_result(outcome, None)  # type: ignore[arg-type]
    assert raw.getvalue().decode("cp1252").strip().endswith("-best.pt")


def test_what_pip_says_is_read_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip writes UTF-8, as asked; what Windows would take it for spoils a certificate's path."""
    said = "global.cert='C:\\\\Users\\\\Łukasz\\\\cert.pem'\n".encode()

    def run(*_: object, encoding: str = "cp1252", errors: str = "strict", **__: object) -> Any:
        return SimpleNamespace(stdout=said.decode(encoding, errors))

    monkeypatch.setattr(surroundings.subprocess, "run", run)
    assert surroundings._pip_settings("python", {}) == {
        "global.cert": "C:\\Users\\Łukasz\\cert.pem"
    }


# ------------------------------------------------------------------ files


def test_a_read_only_file_is_called_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    as_windows(monkeypatch, writing)
    monkeypatch.setattr(moving.time, "sleep", lambda _: None)
    monkeypatch.setattr(Path, "replace", refused)
    target = tmp_path / "a.pt"
    target.write_text("old")
    target.chmod(0o444)
    with pytest.raises(FileWriteError, match="it is read-only"):
        writing.replace(target, lambda temporary: temporary.write_text("new"))
    target.chmod(0o644)
    with pytest.raises(FileWriteError, match="open in another program"):
        writing.replace(target, lambda temporary: temporary.write_text("new"))
    assert os.listdir(tmp_path) == ["a.pt"]


def test_a_run_is_locked_by_windows_means(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An open file can't be removed there, so that it is closed first."""
    taken: list[int] = []

    def lock(descriptor: int, _: int, length: int) -> None:
        assert length == 1
        if taken:
            refused()
        taken.append(descriptor)

    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=lock, LK_NBLCK=2))
    as_windows(monkeypatch, locking)
    with locking.locked(tmp_path / "run"):
        assert os.fstat(taken[0])
        with pytest.raises(TrainingStateError), locking.locked(tmp_path / "run"):
            pass
        assert (tmp_path / "run" / locking.LOCK).exists()
    assert not (tmp_path / "run").exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(taken[0])


# ------------------------------------------------------------------ ports, processes, signals


def test_a_port_that_another_program_has_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    server = pytest.importorskip("hypernetworks.studio.web.server")
    options: list[tuple[int, int, int]] = []

    class Socket:
        def __init__(self, *_: int) -> None:
            pass

        def setsockopt(self, *given: int) -> None:
            options.append(given)  # type: ignore[arg-type]

        def bind(self, _: object) -> None:
            pass

    windows = _Other(socket, SO_EXCLUSIVEADDRUSE=-5, socket=Socket)
    monkeypatch.setattr(server, "socket", windows)
    server._listen("127.0.0.1", 7870)
    assert options == [(socket.SOL_SOCKET, -5, 1)]


@pytest.mark.parametrize("name", ["nt", "posix"])
def test_processes_of_torchrun_meet_without_libuv(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[tuple[str, str | None]] = []
    distributed = SimpleNamespace(
        init_process_group=lambda way: joined.append((way, os.environ.get("USE_LIBUV"))),
        destroy_process_group=lambda: None,
        is_available=lambda: False,
        is_nccl_available=lambda: False,
    )
    monkeypatch.setattr(processes, "distributed", distributed)
    monkeypatch.setattr(processes, "os", _Other(os, name=name))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("USE_LIBUV", "0")
    monkeypatch.delenv("USE_LIBUV")
    with processes.together("cpu"):
        pass
    assert joined == [("gloo", "0" if name == "nt" else None)]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs another signal than Ctrl+C's")
def test_the_second_ctrl_break_kills_as_the_second_ctrl_c_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    before = signal.getsignal(signal.SIGUSR1)
    children: list[subprocess.Popen[bytes]] = []

    class Started(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            children.append(self)
            for wait in (0.2, 0.7):
                threading.Timer(wait, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            threading.Timer(0.5, lambda: alive.append(self.poll() is None)).start()

    alive: list[bool] = []
    monkeypatch.setattr(starting.subprocess, "Popen", Started)
    code = starting.wait(["sleep", "20"], dict(os.environ))
    assert alive == [True]
    assert code == -signal.SIGKILL
    assert signal.getsignal(signal.SIGUSR1) == before
