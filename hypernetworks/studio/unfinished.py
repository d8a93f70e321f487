"""Which jobs a studio had when it was killed or stopped: its next start tells their windows."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import HypernetworkError
from ..files.writing import replace

EVERYONE = "training"
"""A training is no window's: whoever comes first hears of it."""
MOST = 100
"""Jobs that are remembered: a window that never comes back is forgotten in the end."""
_Jobs = list[tuple[str, str]]


class Unfinished:
    """The jobs that were lost, and those that would be if the studio ended now.

    They are on the disk and not in the page, because a page may be loaded several times, by gradio
    and by its own script, until its user sees the message.

    Args:
        memory: a file of this studio alone; ``None`` remembers nothing after its end.
    """

    def __init__(self, memory: Path | None = None) -> None:
        self._memory = memory
        self._lost = _read(memory)
        self._present: _Jobs = []
        self._is_ending = False
        self._changing = threading.Lock()

    def note(self, jobs: Sequence[tuple[str, str]]) -> None:
        """Remember which jobs there are now.

        Args:
            jobs: pairs of a window and what its job is, in words.
        """
        with self._changing:
            if self._is_ending:
                return
            self._present = [(_hidden(window), title) for window, title in jobs]
            # A window that starts another job needs no word of an earlier one any more.
            self._forget({window for window, _ in self._present})
            self._write()

    def end(self) -> None:
        """Remember the present jobs as lost: the studio ends, and takes them with it."""
        with self._changing:
            self._is_ending = True

    def message(self, window: str) -> str:
        """What to tell a window; empty where it has lost nothing. The same until it is seen."""
        whose = {_hidden(window), _hidden(EVERYONE)}
        with self._changing:
            lost = [one for one in self._lost if one[0] in whose]
        if not lost:
            return ""

        titles = list(dict.fromkeys(title for _, title in lost))
        said = f"The studio was stopped before {' and '.join(titles)} could finish."
        if any(owner != _hidden(EVERYONE) for owner, _ in lost):
            said += " Your prompt and settings are still here: start it again."
        if any(owner == _hidden(EVERYONE) for owner, _ in lost):
            said += " Continue the training under Runs in the Train tab."
        return said

    def seen(self, window: str) -> None:
        """A window's user has closed the message."""
        with self._changing:
            self._forget({_hidden(window), _hidden(EVERYONE)})
            self._write()

    def _forget(self, windows: set[str]) -> None:
        self._lost = [one for one in self._lost if one[0] not in windows]

    def _write(self) -> None:
        if self._memory is None:
            return
        text = json.dumps((self._lost + self._present)[-MOST:])
        # No job fails because of its note.
        with suppress(OSError, HypernetworkError):
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            replace(self._memory, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _read(memory: Path | None) -> _Jobs:
    """The jobs in a file; none where it is missing or damaged."""
    try:
        found = json.loads((memory or Path()).read_text(encoding="utf-8"))
        return [(str(window), str(title)[:200]) for window, title in found][-MOST:]
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def _hidden(window: str) -> str:
    """A name that stands for a window in the file: its own name lets its jobs be interrupted."""
    return hashlib.sha256(window.encode("utf-8", "replace")).hexdigest()[:16]
