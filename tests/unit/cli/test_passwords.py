"""The studio's password: asked for, from a file, from the environment; the last resort is the
command line.
"""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path

import pytest

from hypernetworks.cli import passwords
from hypernetworks.errors import HypernetworkError


def chosen(*arguments: str) -> str | None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    passwords.add_password(parser)
    return passwords.chosen_password(parser.parse_args(arguments))


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(passwords.VARIABLE, raising=False)


def answers(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    left = list(words)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(getpass, "getpass", lambda _prompt: left.pop(0))


def test_none_is_named() -> None:
    assert chosen() is None


def test_it_is_asked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "öpen", "öpen")
    assert chosen("--password") == "öpen"
    answers(monkeypatch, "one", "another")
    with pytest.raises(HypernetworkError, match="differ"):
        chosen("--password")
    answers(monkeypatch, "")
    with pytest.raises(HypernetworkError, match="empty"):
        chosen("--password")


def test_without_a_terminal_it_says_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(HypernetworkError, match="--password-file"):
        chosen("--password")


def test_the_first_line_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "word.txt"
    path.write_bytes(b"\xef\xbb\xbf open sesame \r\nnot this\r\n")
    assert chosen("--password-file", str(path)) == " open sesame "
    path.write_bytes("open\u2028se\x0bsame\r\nmore".encode())
    assert chosen("--password-file", str(path)) == "open\u2028se\x0bsame"
    for content, said in ((b"", "empty"), (b"\n", "empty"), (b"\xff\xfe", "UTF-8")):
        path.write_bytes(content)
        with pytest.raises(HypernetworkError, match=said):
            chosen("--password-file", str(path))
    with pytest.raises(HypernetworkError, match="can't be read"):
        chosen("--password-file", str(tmp_path / "none"))


def test_the_environment_is_used_unless_an_option_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(passwords.VARIABLE, "outside")
    (tmp_path / "word").write_text("inside")
    assert chosen() == "outside"
    assert chosen("--password", "typed") == "typed"
    assert chosen("--password-file", str(tmp_path / "word")) == "inside"
    assert chosen("--no-password") is None
    monkeypatch.setenv(passwords.VARIABLE, "")
    with pytest.raises(HypernetworkError, match="empty"):
        chosen()
