"""What gradio remembers of its sessions, kept within limits: it would keep some of it for good."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from . import limits


class _Nothing(dict[int, Any]):
    """Takes everything and keeps nothing.

    gradio copies the whole page's config for each session (a quarter of a MiB), and every output
    into it, only for deep links, which are off here.
    """

    def __contains__(self, key: object) -> bool:
        return True  # so that nothing is worked out to be put in

    def __getitem__(self, key: int) -> dict[str, Any]:
        return {}

    def __setitem__(self, key: int, value: Any) -> None:
        pass


class SlimStates(OrderedDict[str, Any]):
    """gradio's states of sessions, without their copies of the page's config."""

    def __setitem__(self, name: str, state: Any) -> None:
        state.config_values = _Nothing()
        super().__setitem__(name, state)


class Unread:
    """The messages of jobs that nobody has read, which gradio keeps until somebody does.

    Args:
        queue: gradio's, of the page.
    """

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._done: OrderedDict[str, float] = OrderedDict()
        """When each session was first seen without a job that waits or runs; the earliest first."""

    def count(self, session: str | None) -> int:
        """How many messages of a session wait to be read."""
        messages = self._queue.pending_messages_per_session.get(session)
        return 0 if messages is None else int(messages.qsize())

    def sweep(self) -> None:
        """Forget sessions whose jobs ended some time ago, and the earliest of them where there are
        many.
        """
        now, known = time.monotonic(), self._queue.pending_event_ids_session
        running = self._queue.event_ids_to_events

        for session, events in known.items():
            if any(event in running for event in events):
                self._done.pop(session, None)
            else:
                self._done.setdefault(session, now)

        for session in [name for name in self._done if name not in known]:
            del self._done[session]
        while self._done and self._is_over(now):
            self._forget(self._done.popitem(last=False)[0])

    def _is_over(self, now: float) -> bool:
        earliest = next(iter(self._done.values()))
        return now - earliest >= limits.CLOSED or len(self._done) > limits.MOST_SESSIONS

    def _forget(self, session: str) -> None:
        self._queue.pending_event_ids_session.pop(session, None)
        self._queue.pending_messages_per_session.pop(session, None)
