"""One model, many windows: jobs run one after the other, each tells its own window, and each can be interrupted."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


class Desk:
    """The model of the studio and the jobs that use it.

    Args:
        painter: the model to begin with; :meth:`put` changes it.
    """

    def __init__(self, painter: Painter) -> None:
        self.painter = painter
        self.library = painter.library
        self._lock = threading.Lock()
        self._wishes: dict[str, threading.Event] = {}

    def put(self, painter: Painter) -> None:
        """Change the model. Only from within a job, which has it to itself."""
        self.painter = painter

    def interrupt(self, window: str) -> bool:
        """Stop the job of a window after its present step; whether there was one."""
        wish = self._wishes.get(window)
        if wish is not None:
            wish.set()
        return wish is not None

    def run(self, window: str, work: Work) -> Iterator[Update | Any]:
        """Do some work in a thread: yields its updates, the latest only when the window is slow, and last its result.

        Raises:
            InterruptedJobError: it was stopped before its turn.
            Exception: whatever the work raises.
        """
        wish, told = threading.Event(), queue.SimpleQueue[tuple[str, Any]]()
        self._wishes[window] = wish
        threading.Thread(target=self._do, args=(work, wish, told), daemon=True).start()
        try:
            while True:
                kind, value = _latest(told)
                if kind == "error":
                    raise value
                yield value
                if kind == "result":
                    return
        finally:
            wish.set()  # the window was closed in the middle
            if self._wishes.get(window) is wish:
                del self._wishes[window]

    def _do(self, work: Work, wish: threading.Event, told: queue.SimpleQueue[tuple[str, Any]]) -> None:
        try:
            self._wait_for_turn(wish, told)
            try:
                told.put(("result", work(self.painter, lambda update: told.put(("update", update)), wish)))
            finally:
                self._lock.release()
        except Exception as error:
            told.put(("error", error))

    def _wait_for_turn(self, wish: threading.Event, told: queue.SimpleQueue[tuple[str, Any]]) -> None:
        if self._lock.acquire(blocking=False):
            return
        told.put(("update", Update(note="Waiting for a picture of another window …")))
        while not self._lock.acquire(timeout=0.1):
            if wish.is_set():
                raise InterruptedJobError


def _latest(told: queue.SimpleQueue[tuple[str, Any]]) -> tuple[str, Any]:
    """The next thing told; updates that are outdated already are skipped, but not their pictures."""
    kind, value = told.get()
    picture = None
    while kind == "update" and not told.empty():
        picture = value.picture or picture
        kind, value = told.get()
    if kind == "update" and value.picture is None and picture is not None:
        value = Update(value.done, value.total, value.note, picture)
    return kind, value
