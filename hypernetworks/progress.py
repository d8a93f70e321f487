"""A progress line for the terminal: bar, rate and time left. Quiet when the output is not a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from .console import write


class Progress:
    """A context manager that draws ``label [#####.....] 12/20 3.4/s 0:02 left`` on one line of ``stream``.

    On a stream that is not a terminal it prints a plain line at most every 30 seconds instead.
    """

    def __init__(
        self, total: int, label: str, *, initial: int = 0, stream: TextIO | None = None
    ) -> None:
        self.total, self.label, self.initial = total, label, initial
        self.stream = sys.stderr if stream is None else stream
        self._live = self.stream.isatty()
        self._began = self._drawn = time.monotonic()
        self._done = -1

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            write("\n", self.stream)

    def update(self, done: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` are finished."""
        now = time.monotonic()
        is_end = done >= self.total and done != self._done
        if now - self._drawn < (0.1 if self._live else 30) and not is_end:
            return
        self._drawn, self._done = now, done
        rate = (done - self.initial) / max(now - self._began, 1e-9)
        left = int((self.total - done) / rate) if rate else 0
        filled = 24 * done // max(self.total, 1)
        line = (
            f"{self.label} [{'#' * filled}{'.' * (24 - filled)}] {done}/{self.total} "
            f"{rate:.2f}/s {left // 60}:{left % 60:02d} left {note}"
        )
        write(f"\r{line}\x1b[K" if self._live else f"{line}\n", self.stream)
