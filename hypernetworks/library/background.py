"""Background work, done in order by a thread that exists only while there is work."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar

Value = TypeVar("Value")
Work = Callable[[], Value]


class Background(Generic[Value]):
    """Runs each job once, even if several callers ask for it while it waits or runs.

    At its end, the program waits for the running job only, which should check :attr:`stopping`.

    Args:
        when_idle: called by the thread when no job is left.

    Attributes:
        stopping: set when the program ends.
    """

    def __init__(self, when_idle: Callable[[], object] = lambda: None) -> None:
        self.stopping = threading.Event()
        self._when_idle = when_idle
        self._lock = threading.Lock()
        self._waiting: OrderedDict[Hashable, tuple[Work[Value], Future[Value]]] = OrderedDict()
        self._running: tuple[Hashable, Future[Value]] | None = None
        self._thread: threading.Thread | None = None
        self._stops_at_exit = False

    def start(self, key: Hashable, work: Work[Value]) -> Future[Value]:
        """Run this after all earlier jobs; returns at once.

        Args:
            key: identifies the job; a job that waits or runs with the same key is used instead.
            work: its result or error is in the returned future.
        """
        with self._lock:
            return self._asked_for(key, work)

    def result(
        self, key: Hashable, work: Work[Value], known: Callable[[], Value | None] = lambda: None
    ) -> Value:
        """What is known already; else run this as the next job, and wait for its result.

        Args:
            key, work: as for :meth:`start`.
            known: gives the result of a job that has ended, if there is one.

        Raises:
            Exception: what the work raises.
        """
        if (found := known()) is not None:
            return found
        with self._lock:
            # The job may have ended since: waiting for the one after it could take minutes.
            is_running = self._running is not None and self._running[0] == key
            if not is_running and key not in self._waiting and (found := known()) is not None:
                return found
            future = self._asked_for(key, work)
            if key in self._waiting:
                self._waiting.move_to_end(key, last=False)
        return future.result()

    def stop(self) -> None:
        """End the thread, and cancel all waiting and later jobs."""
        self.stopping.set()
        thread = self._thread
        if thread is not None:
            thread.join(timeout=2)  # a disk that doesn't answer must not block the program's end

    def _asked_for(self, key: Hashable, work: Work[Value]) -> Future[Value]:
        if self._running is not None and self._running[0] == key:
            return self._running[1]
        if key not in self._waiting:
            self._waiting[key] = work, Future[Value]()
        future = self._waiting[key][1]

        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hypernetworks", daemon=True)
            self._thread.start()
            if not self._stops_at_exit:
                atexit.register(_stop, weakref.ref(self))
                self._stops_at_exit = True
        return future

    def _run(self) -> None:
        while self._next():
            pass

    def _next(self) -> bool:
        """Run one job, or call ``when_idle`` if there is none.

        Returns:
            Whether there may be more.
        """
        with self._lock:
            piece = self._waiting.popitem(last=False) if self._waiting else None
            self._running = (piece[0], piece[1][1]) if piece is not None else None
        if piece is not None:
            self._do(*piece[1])
            return True

        with suppress(Exception):  # nobody waits for it, and the thread must end cleanly
            self._when_idle()

        # Jobs may have come during that call.
        with self._lock:
            if not self._waiting:
                self._thread = None
            return bool(self._waiting)

    def _do(self, work: Work[Value], future: Future[Value]) -> None:
        try:
            if self.stopping.is_set():
                raise InterruptedError("the program ends")
            future.set_result(work())
        except BaseException as error:  # for the caller, who waits for the future
            future.set_exception(error)


def _stop(background: weakref.ref[Background[Value]]) -> None:
    found = background()
    if found is not None:
        found.stop()
