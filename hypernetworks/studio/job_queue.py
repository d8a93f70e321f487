"""One model, many windows: jobs run one after the other, each tells its own window, and each can be
interrupted.
"""

from __future__ import annotations

import gc
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from ..devices import empty_cache, trim_heap
from .unfinished import Unfinished

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from ..hosts.diffusers import Painter


@dataclass(frozen=True)
class Update:
    """How far a job is.

    Attributes:
        note: in words, such as what it waits for.
        picture: the live preview, where there is a new one.
        is_second: it waits for a job of its own window and kind, which has the display meanwhile.
    """

    done: int = 0
    total: int = 0
    note: str = ""
    picture: Image | None = None
    is_second: bool = False


class InterruptedJobError(Exception):
    """The user stopped the job before it had a result."""


Work = Callable[["Painter", Callable[[Update], None], threading.Event], Any]
"""A job: gets the model, a way to tell how far it is, and whether it is to stop."""
_Said = tuple[str, Any]


@dataclass(eq=False)
class _Job:
    """One job of the queue: whose it is, who listens, and whether it is to stop."""

    window: str
    kind: str | Callable[[], str]
    patience: float
    number: int = field(default_factory=count(1).__next__)
    cancelled: threading.Event = field(default_factory=threading.Event)
    latest: Update | None = None
    end: _Said | None = None
    listeners: list[queue.SimpleQueue[_Said]] = field(default_factory=list)

    def say(self, said: _Said) -> None:
        """Tell all who listen, and keep it for those who come later."""
        if said[0] == "update":
            self.latest = said[1]
        else:
            self.end = said
        for listener in self.listeners:
            listener.put(said)

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return self.kind if isinstance(self.kind, str) else self.kind().partition(" (")[0]


@dataclass(frozen=True)
class Seen:
    """A job as the page's header shows it.

    Attributes:
        number: no other job of this studio has it.
        is_running: it has the model; the others wait.
    """

    number: int
    window: str
    title: str
    done: int
    total: int
    note: str
    is_running: bool


class JobQueue:
    """The model of the studio and the jobs that use it, first come, first served.

    Args:
        painter: the model to begin with; :meth:`put` changes it.
        unfinished: remembers the jobs, for the next start of the studio.
    """

    def __init__(self, painter: Painter, unfinished: Unfinished | None = None) -> None:
        self.painter, self.unfinished = painter, unfinished or Unfinished()
        self.library = painter.library
        self._left: torch.device | None = None
        """Device of a model that was replaced, until its memory is given back."""
        self._jobs: list[_Job] = []
        """In the order of their turns; the first one has the model."""
        self._changed = threading.Condition()

    def put(self, painter: Painter) -> None:
        """Change the model. Only from within a job, which has it to itself.

        The memory of the previous one is given back when the job ends: until then, the job's
        arguments hold it.
        """
        self._left = self.painter.pipeline.device
        self.painter = painter

    def interrupt(self, window: str) -> bool:
        """Stop all jobs of a window, the running one after its present step; whether there was
        one.
        """
        with self._changed:
            # Jobs that wait leave the queue themselves, as soon as they are woken.
            mine = [job for job in self._jobs if job.window == window]
            for job in mine:
                job.cancelled.set()
            self._changed.notify_all()
        return bool(mine)

    def run(
        self,
        window: str,
        work: Work,
        kind: str | Callable[[], str] = "an image",
        patience: float = 0.0,
    ) -> Iterator[Update | Any]:
        """Do some work in a thread: yields its updates, the latest only when the window is slow,
        and last its result.

        Args:
            kind: what others are told to wait for; a function says by and by how far it is, and
                whose.
            patience: seconds that the job goes on after its window has gone, for :meth:`resume`.

        Raises:
            InterruptedJobError: it was stopped before its turn.
            Exception: whatever the work raises.
        """
        job = _Job(window, kind, patience)

        with self._changed:
            self._jobs.append(job)
            self._note()
        # A thread of its own: gradio's workers are few, and must stay free for other windows.
        threading.Thread(target=self._do, args=(work, job), daemon=True).start()
        yield from self._watch(job)

    @contextmanager
    def resume(self, window: str, kind: str) -> Iterator[list[Iterator[Update | Any]]]:
        """What :meth:`run` would go on to yield, for each job of a kind that a window whose page
        was loaded again has, in their order. None of these jobs is left alone meanwhile.
        """
        with ExitStack() as watched:
            # All at once: while the first is shown, the patience of the others would end.
            with self._changed:
                mine = [job for job in self._jobs if job.window == window and job.kind == kind]
                heard = [(job, self._listen(job)) for job in mine]
            for job, told in heard:
                watched.callback(self._leave, job, told)
            yield [_said_by(told) for _, told in heard]

    def seen(self) -> list[Seen]:
        """All jobs in the order of their turns."""
        with self._changed:
            jobs = list(self._jobs)
        found = []
        for job in jobs:
            last = job.latest or Update()
            how_far = (last.done, last.total, last.note)
            found.append(Seen(job.number, job.window, job.title, *how_far, job is jobs[0]))
        return found

    def has(self, window: str, kind: str) -> bool:
        """Whether a window has a job of a kind that runs or waits."""
        with self._changed:
            return any(job.window == window and job.kind == kind for job in self._jobs)

    def _watch(self, job: _Job) -> Iterator[Update | Any]:
        with self._changed:
            told = self._listen(job)
        try:
            yield from _said_by(told)
        finally:
            self._leave(job, told)

    def _listen(self, job: _Job) -> queue.SimpleQueue[_Said]:
        """Where a job's messages come from now on. Only while nothing else changes."""
        told: queue.SimpleQueue[_Said] = queue.SimpleQueue()
        # Whoever comes later begins with what was said last; the end may have come already.
        if job.end is not None:
            told.put(job.end)
        elif job.latest is not None:
            told.put(("update", job.latest))
        job.listeners.append(told)
        return told

    def _leave(self, job: _Job, told: queue.SimpleQueue[_Said]) -> None:
        with self._changed:
            job.listeners.remove(told)
        self._left_alone(job)

    def _left_alone(self, job: _Job) -> None:
        """Stop a job whose window was closed, unless the page comes back in time."""
        # A reload closes the connection, too, and comes back within a second or so.
        if job.patience and not job.cancelled.is_set() and job.end is None:
            timer = threading.Timer(job.patience, self._stop_if_alone, [job])
            timer.daemon = True
            timer.start()
        else:
            self._stop_if_alone(job)

    def _stop_if_alone(self, job: _Job) -> None:
        with self._changed:
            if not job.listeners:
                job.cancelled.set()
                self._changed.notify_all()

    def _do(self, work: Work, job: _Job) -> None:
        try:
            self._wait_for_turn(job)
            result = work(self.painter, lambda update: self._say(job, update), job.cancelled)
            said: _Said = ("result", result)
        except Exception as error:
            said = ("error", error)
        # A library that asks to exit ends its job, not the window's waiting.
        except BaseException as error:
            said = ("error", RuntimeError(f"the job ended with {error!r}"))
        finally:
            self._give_back(job)
            with self._changed:
                self._jobs.remove(job)
                self._note()
                job.say(said)
                self._changed.notify_all()

    def _note(self) -> None:
        self.unfinished.note([(job.window, job.title) for job in self._jobs])

    def _say(self, job: _Job, update: Update) -> None:
        with self._changed:
            job.say(("update", update))

    def _give_back(self, job: _Job) -> None:
        """Free what this job leaves, a model that it replaced included, before the next one takes
        its turn.
        """
        if self._jobs[0] is not job:
            return

        if self._left is not None:
            gc.collect()  # Python itself may leave what refers to itself for hours
            empty_cache(self._left)
            self._left = None
        trim_heap()  # each job has a thread of its own

    def _wait_for_turn(self, job: _Job) -> None:
        said = ""
        with self._changed:
            while self._jobs[0] is not job:
                if job.cancelled.is_set():
                    raise InterruptedJobError
                if said != (said := self._what_is_before(job)):
                    job.say(("update", Update(note=said, is_second=self._is_second(job))))
                self._changed.wait(1.0)  # what is before may have come further
            if job.cancelled.is_set():
                raise InterruptedJobError

    def _is_second(self, job: _Job) -> bool:
        before = self._jobs[: self._jobs.index(job)]
        return any(one.window == job.window and one.kind == job.kind for one in before)

    def _what_is_before(self, job: _Job) -> str:
        before = self._jobs[: self._jobs.index(job)]
        kind = before[0].kind
        if callable(kind):
            return f"Waiting for {kind()} …"
        if len(before) > 1:
            return f"Waiting for {len(before)} jobs ahead …"
        return (
            f"Waiting for {kind} of {'this' if before[0].window == job.window else 'another'} "
            "window …"
        )


def _said_by(told: queue.SimpleQueue[_Said]) -> Iterator[Update | Any]:
    """A job's updates and its result; raises what ended it."""
    while True:
        kind, value = _latest(told)
        if kind == "error":
            raise value
        yield value
        if kind == "result":
            return


def _latest(told: queue.SimpleQueue[_Said]) -> _Said:
    """The next message; outdated updates are skipped, but not their images."""
    # A window that is slow would fall behind for ever if it had to show every update.
    kind, value = told.get()
    picture = None
    while kind == "update" and not told.empty():
        picture = value.picture or picture
        kind, value = told.get()
    if kind == "update" and value.picture is None and picture is not None:
        value = Update(value.done, value.total, value.note, picture)
    return kind, value
