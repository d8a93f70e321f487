"""A progress line for the terminal: bar, rate and time left.

Quiet when the output is not a terminal.
"""

from __future__ import annotations

import os
import sys
import time
import unicodedata
from contextlib import suppress
from types import TracebackType
from typing import TextIO

from .console import write

LONGEST_BAR, SHORTEST_BAR = 24, 6
USUAL_WIDTH = 80
"""Columns of a terminal that doesn't say how many it has."""


class Progress:
    """A context manager that draws ``label [#####.....] 12/20 3.4/s 0:02 left`` on one line of
    ``stream``.

    The line fits the terminal. It is redrawn with a carriage return and blanks, because not every
    console understands escape codes. If the stream is not a terminal, a plain line is printed every
    30 seconds at most. If the terminal is closed, the work continues.
    """

    def __init__(
        self, total: int, label: str, *, initial: int = 0, stream: TextIO | None = None
    ) -> None:
        self.total, self.label, self.initial = total, label, initial
        self.stream = sys.stderr if stream is None else stream
        self._live = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self._columns = 0  # of what is drawn now
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
            self._write("\n")

    def update(self, done: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` are finished."""
        now = time.monotonic()
        is_end = done >= self.total and done != self._done
        if now - self._drawn < (0.1 if self._live else 30) and not is_end:
            return
        self._drawn, self._done = now, done

        rate = (done - self.initial) / max(now - self._began, 1e-9)
        left = int(max(0, self.total - done) / rate) if rate else 0
        figures = f"{rate:.2f}/s {left // 60}:{left % 60:02d} left"
        if not self._live:
            self._write(f"{self._line(done, LONGEST_BAR)} {figures} {note}".rstrip() + "\n")
            return

        # The last column stays free: a console that writes there goes on to the next line.
        width = self._terminal_width() - 1
        line = fitted(
            (self._line(done, LONGEST_BAR), self._line(done, SHORTEST_BAR)), figures, note, width
        )
        columns = columns_of(line)
        self._write(f"\r{line}{' ' * (min(self._columns, width) - columns)}")
        self._columns = columns

    def _line(self, done: int, bar: int) -> str:
        filled = min(bar, bar * done // max(self.total, 1))
        return f"{self.label} [{'#' * filled}{'.' * (bar - filled)}] {done}/{self.total}"

    def _terminal_width(self) -> int:
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or USUAL_WIDTH
        except (OSError, ValueError, AttributeError):  # no terminal of the system's
            return USUAL_WIDTH

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # the window was closed, the pipe has no reader
            write(text, self.stream)


def fitted(bars: tuple[str, str], figures: str, note: str, width: int) -> str:
    """As much of the line as fits into the width; the note is shortened first.

    Args:
        bars: the line's beginning with a long and a short bar.
        figures: rate and time left.
        note: anything else; cut where there is no room for all of it.
        width: columns of the terminal that may be used.
    """
    long, short = bars
    for line in (f"{long} {figures} {note}", f"{short} {figures} {note}"):
        if columns_of(line.rstrip()) <= width:
            return line.rstrip()
    line = f"{short} {figures}"
    if columns_of(line) > width:
        return cut(short, width)

    return cut(f"{line} {note}", width).rstrip()


def columns_of(text: str) -> int:
    """How many columns the text takes in a terminal: two for each wide character, none for a
    combining mark.
    """
    return sum(map(_columns_of_one, text))


def _columns_of_one(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def cut(text: str, width: int) -> str:
    """The beginning of a text, at most ``width`` columns wide."""
    kept = ""
    for character in text:
        if columns_of(kept + character) > width:
            break
        kept += character
    return kept
