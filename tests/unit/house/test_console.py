"""Lines for any console: what its encoding lacks becomes a question mark."""

from __future__ import annotations

import io

import pytest

from hypernetworks.console import say
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
