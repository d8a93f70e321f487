"""One training at a time, each in a process of its own; the others wait in the order of their
clicks.

A thread starts the process, follows the files of its run, and puts the finished network into the
library. Nothing of it depends on a page that is open.
"""

from __future__ import annotations

import atexit
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ....ending import WITH_INPUT
from ....errors import HypernetworkError, printable
from ....files.writing import replace as write
from ....library import Library
from ....training import TrainingStep
from ....training.creation import check_name
from ....ui.training.publish import check_free, publish
from ....ui.training.runs import remember
from ....ui.training.state import State, previews_of, rows_of
from ....ui.training.values import FormValues
from ..commands import NO_WINDOW, ROOT, environment

POLL_SECONDS = 0.5
_AT_THE_END = 60.0
"""Seconds that a training gets for saving its state when the webui ends."""
_LOG_LINES = 12
_BAR = re.compile(r" \[[#.]+\]")
"""The bar of a progress line, which the page draws better."""
CHECKPOINT = "checkpoint.txt"
"""In a run's folder: what it is trained on, so that it goes on with the same one."""


@dataclass(frozen=True)
class Order:
    """A training that was asked for.

    Attributes:
        values: the form's fields.
        command: interpreter and arguments.
        runs: folder of runs.
        checkpoint: that is trained on.
        may_replace: whether the library's file of this name may be replaced.
    """

    values: FormValues
    command: tuple[str, ...]
    runs: Path
    checkpoint: Path
    may_replace: bool = False

    @property
    def name(self) -> str:
        """Of the network."""
        return self.values.name.strip()

    @property
    def suffix(self) -> str:
        """Of its file."""
        return self.values.file_suffix

    @property
    def restart(self) -> bool:
        """Whether an earlier run of this name is deleted."""
        return self.values.start_over

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.runs / self.name


@dataclass
class Queue:
    """Trainings that wait, and the one that runs.

    Attributes:
        library: asked for the webui's library and its first folder, when a network is finished.
        before, after: called before each training, and when the queue is empty again; they don't
            raise.
        state: of the training that runs, or ran last.
    """

    library: Callable[[], tuple[Library, Path]]
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None
    state: State = field(default_factory=State)

    def __post_init__(self) -> None:
        self._waiting: deque[Order] = deque()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._interrupted = False
        atexit.register(self.close)

    def add(self, order: Order) -> int:
        """Put an order at the end of the queue; returns how many are before it.

        Raises:
            HypernetworkError: the name is taken, or waits already.
        """
        check_name(order.name)
        library, folder = self.library()
        may_replace = check_free(order, library, folder, order.values.replace)

        with self._lock:
            names = [waiting.name for waiting in self._waiting]
            if self.state.is_running:
                names.insert(0, self.state.name)
            if order.name in names:
                raise HypernetworkError(
                    f'"{order.name}" is being trained or waits for it: choose another name'
                )

            self._waiting.append(replace(order, may_replace=may_replace))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
        return len(names)

    def waiting(self) -> list[str]:
        """Names of the trainings that wait, the next one first."""
        with self._lock:
            return [order.name for order in self._waiting]

    def remove(self, name: str) -> bool:
        """Take a waiting training out of the queue; whether it was in it.

        Raises:
            HypernetworkError: it is being trained.
        """
        with self._lock:  # else it could begin between the question and the removal
            if self.state.is_running and self.state.name == name:
                raise HypernetworkError(f'"{name}" is being trained: interrupt it first')
            before = len(self._waiting)
            self._waiting = deque(order for order in self._waiting if order.name != name)
            return len(self._waiting) < before

    def interrupt(self) -> bool:
        """Stop after the present step, which is saved, and at once when asked again; whether one
        was running.
        """
        process = self._process
        if process is None or process.poll() is not None:
            return False
        if self._interrupted:
            process.terminate()  # asked for a second time: at once
        self._interrupted = True
        if process.stdin is not None:
            process.stdin.close()
        return True

    def wait(self, seconds: float) -> None:
        """Until the queue is empty, but no longer than that."""
        if (thread := self._thread) is not None:
            thread.join(seconds)

    def close(self) -> None:
        """When the webui ends: nothing new begins, and what runs saves its state."""
        with self._lock:
            self._waiting.clear()
        if self.interrupt():
            self.wait(_AT_THE_END)

    def _work(self) -> None:
        while (order := self._next()) is not None:
            self.before()
            self._train(order, self.state)

    def _next(self) -> Order | None:
        """The next order, with a state of its own; ``None`` ends the thread."""
        with self._lock:
            if not self._waiting:
                # Inside the lock: a training that is added now begins after it.
                self.after()
                self._thread = None
                return None
            order = self._waiting.popleft()
            steps = int(order.values.steps or 0)
            self.state = State(order.name, "Starting …", total=steps, is_running=True)
            self._interrupted = False
            return order

    def _train(self, order: Order, state: State) -> None:
        try:
            if not order.restart:
                self._show(order, state)
            remember(replace(order.values, start_over=False), order.folder)
            place, text = order.folder / CHECKPOINT, str(order.checkpoint)
            write(place, lambda temporary: temporary.write_text(text, encoding="utf-8"))

            log = order.folder / "trainer.log"
            # A file and no pipe: the trainer never waits for a reader, and its end can be read.
            with log.open("wb") as messages:
                self._process = start(order.command, messages, ends_with_input=True)
                while self._process.poll() is None:
                    time.sleep(POLL_SECONDS)
                    self._show(order, state)
                    state.note = _note(state, log)

            self._show(order, state)
            self._finish(order, state, self._process, log)
        except HypernetworkError as error:
            state.messages.append(str(error))
            state.is_wrong = True
        except Exception as error:  # whatever the system may refuse
            state.messages.append(f"the training failed ({type(error).__name__}: {error})")
            state.is_wrong = True
        finally:
            self._process = None
            state.is_running = False

    def _show(self, order: Order, state: State) -> None:
        """Read what the run's files say now."""
        rows = rows_of(order.folder, state.total)
        if rows:
            state.rows = _with_speed(rows)
            state.done = rows[-1].step

        # Images are decoded again only when there are more of them.
        if len(list((order.folder / "previews").glob("*-*.png"))) != sum(
            len(images) for _, images in state.previews
        ):
            state.previews = previews_of(order.folder)

    def _finish(
        self, order: Order, state: State, process: subprocess.Popen[bytes], log: Path
    ) -> None:
        lines = _lines(log)
        if process.returncode == 130 or (self._interrupted and process.returncode):
            state.messages.append(
                f"interrupted after {state.done} steps: Continue, in the list of runs, goes on"
            )
        elif process.returncode:
            # The trainer's own sentence, if it had time for one; else the end of a traceback.
            said = [line for line in lines if line.startswith("hypernetworks: ")] or lines
            state.messages.append(said[-1].removeprefix("hypernetworks: ") if said else "it ended")
            state.is_wrong = True
            return

        if (file := _result(lines, order)) is not None:
            library, folder = self.library()
            state.kept_as = publish(order, file, library, folder, order.may_replace)


def start(
    command: Sequence[str], output: object, *, ends_with_input: bool = False
) -> subprocess.Popen[bytes]:
    """Start a command of ours; both of its streams go into a file.

    Args:
        ends_with_input: whether it has an input whose end stops it, and with it the end of the
            webui, however that comes: AUTOMATIC1111 leaves at Ctrl+C without any clean-up.
    """
    variables = environment()
    if ends_with_input:
        variables[WITH_INPUT] = "1"
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        list(command),
        stdin=subprocess.PIPE if ends_with_input else subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env=variables,
        creationflags=NO_WINDOW,
        # Else Ctrl+C in the webui's console would reach it, too: twice means "at once".
        start_new_session=True,
    )


def _lines(log: Path) -> list[str]:
    """The last lines that the trainer printed."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()][-_LOG_LINES:]


def _note(state: State, log: Path) -> str:
    """What is being done: the step, or until the first one what the trainer says it prepares."""
    if state.rows:
        return f"Step {state.done} of {state.total}" if state.total else f"Step {state.done}"
    lines = [_BAR.sub("", line.removeprefix("hypernetworks: ")) for line in _lines(log)]
    return printable(lines[-1][:1].upper() + lines[-1][1:], 160) if lines else "Starting …"


def _result(lines: Sequence[str], order: Order) -> Path | None:
    """The file that the trainer named last, if it is one of this run's."""
    named = [Path(line) for line in lines if line.endswith(order.suffix)]
    return next((path for path in reversed(named) if path.parent == order.folder), None)


def _with_speed(rows: list[TrainingStep]) -> list[TrainingStep]:
    """The steps, the last one with its speed and the time left: the log has only seconds."""
    recent = [row.seconds for row in rows[-20:] if row.seconds > 0]
    if not recent:
        return rows
    each = sum(recent) / len(recent)
    left = max(0, rows[-1].steps - rows[-1].step) * each
    return [*rows[:-1], replace(rows[-1], steps_per_second=1 / each, seconds_left=left)]
