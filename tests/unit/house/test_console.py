"""Lines for any console: what its encoding lacks becomes a question mark."""

from __future__ import annotations

import io

import pytest

from hypernetworks.console import say, warn, write
from hypernetworks.errors import FileMissingError, HypernetworkError


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437", "utf-8"])
def test_every_line_arrives(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    for text in ("水彩 é", "wat\udce9r", "plain"):
        say(text, stream)
    lines = raw.getvalue().decode(encoding).splitlines()
    assert len(lines) == 3
    assert lines[2] == "plain"


@pytest.mark.parametrize("kind", [HypernetworkError, FileMissingError])
def test_messages_of_errors_can_be_sent(kind: type[HypernetworkError]) -> None:
    text = str(kind("wat\udce9r: there is no such file"))
    assert text.encode() == b"wat\\udce9r: there is no such file"


def test_warnings_keep_out_of_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    say("a result")
    warn("a warning")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("a result\n", "a warning\n")


def test_control_characters_of_names_dont_reach_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    odd = "".join(map(chr, [*range(32), *range(127, 160)]))
    say(f"\x1b[31mred.pt\r{odd}\x9b2J")
    said = capsys.readouterr().out
    assert said.startswith("?[31mred.pt?")
    assert {c for c in said if not c.isprintable()} == {"\t", "\n"}
    write("\rprogress")
    assert capsys.readouterr().out == "\rprogress"


def test_without_a_console_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    say("nobody reads it")
    warn("nor this")
