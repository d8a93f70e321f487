"""One model, many windows: jobs run one after the other, each tells its own window, and each can be
interrupted.
"""

from __future__ import annotations

import gc
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..devices import empty_cache, trim_heap

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from ..hosts.diffusers import Painter


@dataclass(frozen=True)
class Update:
    """How far a job is.

    Attributes:
        note: in words, such as what it waits for.
        picture: the forming picture, where there is a new one.
    """

    done: int = 0
    total: int = 0
    note: str = ""
    picture: Image | None = None


class InterruptedJobError(Exception):
    """The user stopped the job before it had a result."""


Work = Callable[["Painter", Callable[[Update], None], threading.Event], Any]
"""A job: gets the model, a way to tell how far it is, and the wish to stop."""


@dataclass(eq=False)
class _Job:
    """One job on the desk: whose it is, and whether it is to stop."""

    window: str
    kind: str | Callable[[], str]
    cancelled: threading.Event = field(default_factory=threading.Event)
    told: queue.SimpleQueue[tuple[str, Any]] = field(default_factory=queue.SimpleQueue)


class JobQueue:
    """The model of the studio and the jobs that use it, first come, first served.

    Args:
        painter: the model to begin with; :meth:`put` changes it.
    """

    def __init__(self, painter: Painter) -> None:
        self.painter = painter
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
        self, window: str, work: Work, kind: str | Callable[[], str] = "an image"
    ) -> Iterator[Update | Any]:
        """Do some work in a thread: yields its updates, the latest only when the window is slow,
        and last its result.

        Args:
            kind: what others are told to wait for; a function says by and by how far it is, and
                whose.

        Raises:
            InterruptedJobError: it was stopped before its turn.
            Exception: whatever the work raises.
        """
        job = _Job(window, kind)
        with self._changed:
            self._jobs.append(job)
        threading.Thread(target=self._do, args=(work, job), daemon=True).start()

        try:
            while True:
                told, value = _latest(job.told)
                if told == "error":
                    raise value
                yield value
                if told == "result":
                    return
        finally:
            with self._changed:
                job.cancelled.set()  # the window was closed in the middle
                self._changed.notify_all()

    def _do(self, work: Work, job: _Job) -> None:
        try:
            self._wait_for_turn(job)
            said: tuple[str, Any] = (
                "result",
                work(self.painter, lambda update: job.told.put(("update", update)), job.cancelled),
            )
        except Exception as error:
            said = ("error", error)
        # A library that asks to exit ends its job, not the window's waiting.
        except BaseException as error:
            said = ("error", RuntimeError(f"the job ended with {error!r}"))
        finally:
            self._give_back(job)
            with self._changed:
                self._jobs.remove(job)
                self._changed.notify_all()

        job.told.put(said)

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
                    job.told.put(("update", Update(note=said)))
                self._changed.wait(1.0)  # what is before may have come further
            if job.cancelled.is_set():
                raise InterruptedJobError

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


def _latest(told: queue.SimpleQueue[tuple[str, Any]]) -> tuple[str, Any]:
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
