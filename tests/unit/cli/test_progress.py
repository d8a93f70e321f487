"""The progress line: fits the terminal, leaves nothing of what was drawn before, and needs no
escape codes.
"""

from __future__ import annotations

import io
import itertools
import os
import re

import pytest

from hypernetworks import progress
from hypernetworks.progress import Progress, columns_of

NOTE = "loss 0.1234  validation 0.1230  rate 0.001  generating previews 17/80"


class Screen(io.StringIO):
    """A console of so many columns that knows no escape codes; a line that is too long wraps, as on
    Windows.
    """

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 77

    @property
    def lines(self) -> list[str]:
        """What is to be seen."""
        lines = [""]
        for part in re.split(r"(\r|\n)", self.getvalue()):
            if part == "\n":
                lines.append("")
            elif part != "\r":
                assert part.isprintable(), "no escape codes"
                assert columns_of(part) < self.columns, "it would wrap"
                lines[-1] = part + lines[-1][len(part) :]
        return [line.rstrip() for line in lines]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second between two looks at the clock."""
    ticks = itertools.count()
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(ticks)))
    monkeypatch.delenv("TERM", raising=False)


def draw(columns: int, label: str, monkeypatch: pytest.MonkeyPatch) -> Screen:
    screen = Screen(columns)
    monkeypatch.setattr(os, "get_terminal_size", lambda _=0: os.terminal_size((screen.columns, 24)))
    with Progress(1000, label, stream=screen) as line:
        line.update(1, NOTE)
        line.update(999, "")
    return screen


@pytest.mark.parametrize("columns", [20, 40, 79, 80, 120, 200])
@pytest.mark.parametrize("label", ["ink", "a network with a long name", "墨水と水彩", "cafe\u0301"])
def test_it_fits_and_leaves_no_rest(
    columns: int, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = draw(columns, label, monkeypatch)
    assert screen.lines[1:] == [""]
    assert label[:5] in screen.lines[0]
    assert "loss" not in screen.lines[0]
    if columns >= 79:
        assert screen.lines[0].endswith("left")
        assert "999/1000" in screen.lines[0]
    if columns == 200:
        assert NOTE in screen.getvalue()


def test_a_terminal_that_says_no_width_has_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int = 0) -> os.terminal_size:
        raise OSError(25, "Inappropriate ioctl for device")

    monkeypatch.setattr(os, "get_terminal_size", refused)
    screen = Screen(80)
    with Progress(1000, "ink", stream=screen) as line:
        line.update(999, NOTE)
    assert "999/1000" in screen.lines[0]


@pytest.mark.parametrize("term", ["dumb", None])
def test_without_a_terminal_there_are_plain_lines(
    monkeypatch: pytest.MonkeyPatch, term: str | None
) -> None:
    stream = Screen(80) if term else io.StringIO()
    if term:
        monkeypatch.setenv("TERM", term)
    with Progress(1000, "ink", stream=stream) as line:
        for done in range(1, 41):
            line.update(done, NOTE)
    assert stream.getvalue().count("\n") == 1
    assert "\r" not in stream.getvalue()


def test_more_than_the_total_leaves_no_time_and_no_longer_bar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda _=0: os.terminal_size((80, 25)))
    screen = Screen(80)
    with Progress(2, "ink", stream=screen) as line:
        line.update(3)
    assert f"[{'#' * 24}] 3/2" in screen.lines[0]
    assert screen.lines[0].endswith(" 0:00 left")


def test_a_terminal_that_is_gone_ends_nothing() -> None:
    class Gone(Screen):
        def write(self, _: str) -> int:
            raise OSError(5, "Input/output error")

    with Progress(10, "ink", stream=Gone(80)) as line:
        line.update(5)
    closed = Screen(80)
    with Progress(10, "ink", stream=closed) as line:
        closed.close()
        line.update(5)
