"""docs/commands.md and ``--help`` name the same options, command by command."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from hypernetworks.cli import _parser

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
SHARED_WITH_CREATE = "The new network:"


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (found,) = [a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(found.choices)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """All spellings of its options, and the names of its positional arguments."""
    found = set[str]()
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            found.update(action.option_strings or [str(action.metavar or action.dest).upper()])
    return found


def documented(page: str, command: str) -> set[str]:
    """What the first column of the command's tables names, and the line on a new network."""
    section = page.split(f"\n## {command}\n", 1)[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    if SHARED_WITH_CREATE in section:
        cells.append(section.split(SHARED_WITH_CREATE)[1].split("mean the same")[0])
    return set(re.findall(r"`([^`]+)`", " ".join(cells)))


@pytest.mark.parametrize("command", commands())
def test_every_option_is_in_the_docs_and_every_documented_option_exists(command: str) -> None:
    assert documented(PAGE, command) == options_of(commands()[command])


def test_every_command_has_a_section() -> None:
    assert re.findall(r"^## (.+)$", PAGE, re.MULTILINE) == list(commands())


def test_a_missing_option_is_noticed() -> None:
    page = PAGE.replace("| `--watch-every` |", "| `--watch` |")
    parser = commands()["train"]
    assert documented(page, "train") ^ options_of(parser) == {"--watch", "--watch-every"}


@pytest.mark.parametrize("command", commands())
def test_every_option_says_what_it_does(command: str) -> None:
    parser = commands()[command]
    silent = [a.option_strings or a.dest for a in parser._actions if not a.help]
    assert silent == []
    assert parser.description, "a command's own help begins with what it does"
