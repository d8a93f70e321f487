"""Asked to end by Ctrl+C, a signal or a console that goes: a training is saved; what the killed
leave goes later.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit" / "training"))

from toys import Toy, toy_settings  # noqa: E402

from hypernetworks import ending  # noqa: E402
from hypernetworks.studio.web import leftovers  # noqa: E402
from hypernetworks.training import train  # noqa: E402

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.mark.parametrize("number", ending.REQUESTS, ids=lambda n: n.name)
def test_every_request_saves_the_step_that_is_under_way(
    tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    with ending.noticed("stopping") as asked:
        run = Toy().run(toy_settings(save_every=0), tmp_path)
        train(run, on_step=lambda _: signal.raise_signal(number), should_stop=lambda: bool(asked))
    assert Toy().run(toy_settings(), tmp_path).step == 1
    assert signal.getsignal(number) == before


@posix
def test_signals_that_only_windows_has_are_heard(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ending, "REQUESTS", (*ending.REQUESTS, signal.SIGUSR1))  # as SIGBREAK
    with ending.noticed("stopping") as asked:
        assert not asked
        signal.raise_signal(signal.SIGUSR1)
        assert asked
        signal.raise_signal(signal.SIGUSR1)  # Windows may send it again
    assert capfd.readouterr().err == "\nstopping\n"


def test_the_second_interrupt_ends_at_once() -> None:
    with ending.noticed("stopping") as asked:
        signal.raise_signal(signal.SIGINT)
        assert asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@posix
def test_a_closed_terminal_may_say_so_twice_and_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", gone)
    with ending.noticed("stopping") as asked:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert asked


@posix
def test_what_is_ignored_stays_ignored() -> None:
    """``nohup`` ignores SIGHUP, so that a program lives on without its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending.noticed("stopping") as asked:
            signal.raise_signal(signal.SIGHUP)
            assert not asked
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("event", [2, 5, 6], ids=["close", "log off", "shut down"])
def test_a_console_that_goes_waits_until_all_is_saved(tmp_path: Path, event: int) -> None:
    """Windows ends the process when the handler returns, which it calls in a thread of its own."""
    seen: list[tuple[bool, bool]] = []

    def close() -> None:
        taken = asked.on_console(event)
        seen.append((taken, (tmp_path / "state.pt").exists()))

    def on_step(_: object) -> None:
        thread.start()
        time.sleep(20)  # as a step may take on a CPU; it is not waited for

    thread = threading.Thread(target=close)
    began = time.monotonic()
    with ending.noticed("stopping") as asked:
        run = Toy().run(toy_settings(save_every=0), tmp_path)
        with pytest.raises(KeyboardInterrupt):
            train(run, on_step=on_step, should_stop=lambda: bool(asked))
    thread.join(10)
    assert seen == [(True, True)]
    assert time.monotonic() - began < 15
    assert Toy().run(toy_settings(), tmp_path).step == 1


def test_a_console_leaves_ctrl_c_to_the_signals() -> None:
    asked = ending.Ending("stopping")
    assert not asked.on_console(0)
    assert not asked.on_console(1)
    assert not asked


STUDIO = """
import sys, threading, time
from pathlib import Path
from types import SimpleNamespace
from hypernetworks.studio.unfinished import Unfinished
from hypernetworks.studio.web import server

class Trainer:
    def __init__(self, *_):
        self.state = SimpleNamespace(name="toy", is_running=True)
    def interrupt(self):
        threading.Thread(target=self.save).start()
        return True
    def save(self):
        time.sleep(1)
        Path(sys.argv[1], "saved").touch()
        self.state.is_running = False
    def wait(self, seconds):
        time.sleep(seconds)

async def app(scope, receive, send):
    pass

server.Trainer, server.own_folder = Trainer, lambda *_: None
server.build_app = lambda *_, **__: app
server.launch(SimpleNamespace(library=None, unfinished=Unfinished()), port=int(sys.argv[2]), open_browser=False)
"""


def start_studio(folder: Path) -> subprocess.Popen[str]:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own: dict[str, Any] = {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "TEMP": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-c", STUDIO, str(folder), str(port)],
        env={**os.environ, **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    assert "Hypernetworks studio" in said, said + process.stdout.read()
    time.sleep(0.5)
    return process


@posix
@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGINT"])
def test_a_studio_saves_its_training_whatever_ends_it(tmp_path: Path, name: str) -> None:
    studio = start_studio(tmp_path)
    assert list(tmp_path.glob("hypernetworks-studio-*"))
    studio.send_signal(getattr(signal, name))
    time.sleep(0.5)
    if name != "SIGINT":  # a closed window may say so twice; the second Ctrl+C ends at once
        studio.send_signal(signal.SIGHUP)
    said = studio.communicate(timeout=60)[0]
    assert studio.returncode == 0, said
    assert (tmp_path / "saved").exists()
    assert not list(tmp_path.glob("hypernetworks-studio-*"))


@posix
def test_what_a_killed_studio_left_is_swept_and_what_a_live_one_has_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = start_studio(tmp_path)
    (folder,) = tmp_path.glob("hypernetworks-studio-*")
    (tmp_path / "hypernetworks-studio-link").symlink_to(folder, target_is_directory=True)
    monkeypatch.setattr(leftovers.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(leftovers, "_YOUNGEST", -1.0)
    leftovers.sweep()
    assert folder.exists()
    studio.kill()
    studio.communicate(timeout=30)
    leftovers.sweep()
    assert not folder.exists()


def test_folders_of_earlier_versions_and_young_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers.tempfile, "gettempdir", lambda: str(tmp_path))
    ages = {"old": 2 * 86400, "today": 3600, "young": 0}
    for name, age in ages.items():
        folder = tmp_path / f"hypernetworks-studio-{name}"
        folder.mkdir()
        if name == "young":
            (folder / "alive.lock").touch()
        os.utime(folder, (time.time() - age,) * 2)
    leftovers.sweep()
    assert {p.name.rpartition("-")[2] for p in tmp_path.iterdir()} == {"today", "young"}


def test_the_end_of_the_input_is_a_request_where_somebody_asks_for_that() -> None:
    """A webui stops a training so; and it happens by itself when the webui is killed."""
    code = (
        "import time\nfrom hypernetworks.ending import noticed\n"
        "with noticed('stopping') as ending:\n    print('ready', flush=True)\n"
        "    while not ending: time.sleep(0.01)\nprint('saved')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, ending.WITH_INPUT: "1"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.close()
        assert process.stdout.read() == "saved\n"
    assert process.returncode == 0

    unasked = subprocess.run(
        [sys.executable, "-c", code.replace("while not ending", "for _ in range(20)")
         .replace("print('saved')", "print(bool(ending))")],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert unasked.stdout == "ready\nFalse\n"
