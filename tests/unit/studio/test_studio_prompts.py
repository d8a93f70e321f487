"""Prompts that come through the API are bounded: their length, their tags, and what unknown names
cost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hypernetworks.errors import HypernetworkError, UnknownNameError
from hypernetworks.hosts import resolving
from hypernetworks.hosts.diffusers import Generation
from hypernetworks.library import Library, names
from hypernetworks.library.likeness import Likeness
from hypernetworks.prompts import parse
from hypernetworks.studio import generating
from hypernetworks.studio.comparing.planning import plan

SETTINGS = (1, 3.0, 1, None, 1, 64, 64)
COUNT = 300


@pytest.fixture
def library(tmp_path: Path) -> Library:
    for number in range(COUNT):
        (tmp_path / f"a network with a name {number:04}.pt").touch()
    return Library([tmp_path])


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that were compared with all others."""
    seen: list[str] = []

    def nearest(_self: Likeness, wanted: str, *_options: Any) -> list[str]:
        seen.append(wanted)
        return []

    monkeypatch.setattr(Likeness, "nearest", nearest)
    return seen


def tags(count: int) -> str:
    return " ".join(f"<hypernet:unknown {number}:1>" for number in range(count))


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x" * (generating.LONGEST_PROMPT + 1), "shorten it to 20,000"),
        (tags(generating.MOST_TAGS + 1), "use at most 200"),
    ],
)
def test_a_prompt_that_is_too_long_is_refused(place: int, text: str, said: str) -> None:
    prompts = ["a cat", ""]
    prompts[place] = text
    with pytest.raises(HypernetworkError, match=said):
        generating.job_of(*prompts, *SETTINGS)


def test_the_longest_prompt_is_taken() -> None:
    most = tags(generating.MOST_TAGS)
    text = most + "x" * (generating.LONGEST_PROMPT - len(most))
    assert generating.job_of(text, "", *SETTINGS).prompt == text


def test_few_unknown_names_are_compared_with_all_others(
    library: Library, compared: list[str]
) -> None:
    told: list[str] = []
    resolver = resolving.Resolver(library, lambda *_: None, told.append)
    assert resolver.uses(parse(tags(100))[1]) == []
    assert len(told) == 100  # each one is told all the same
    assert len(compared) == resolving.MOST_SUGGESTIONS


def test_a_long_name_is_compared_with_none(library: Library, compared: list[str]) -> None:
    with pytest.raises(UnknownNameError, match="there is no hypernetwork"):
        library.find("x" * (names.LONGEST_NAME + 1))
    assert compared == []
    with pytest.raises(UnknownNameError):
        library.find("x" * names.LONGEST_NAME)
    assert len(compared) == 1


def test_a_sheet_that_is_too_large_is_refused_before_names_are_looked_up(
    library: Library, compared: list[str]
) -> None:
    typed = ", ".join(f"unknown {number}" for number in range(5_000))
    with pytest.raises(HypernetworkError, match="choose at most"):
        plan(Generation("a cat"), [("Network", typed)], library)
    assert compared == []
