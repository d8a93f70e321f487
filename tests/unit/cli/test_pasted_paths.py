"""Paths as people paste them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypernetworks.console import pasted_path


@pytest.mark.parametrize(
    "text", ['"{}"', "'{}'", "\u202a{}", "{} ", ' "{}"', '\u202a"{}"\u202c', "{}\n", "{}"]
)
def test_what_systems_put_around_a_path_is_taken_off(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a b.pt"
    assert pasted_path(text.format(path)) == path


def test_the_home_folder_and_names_that_are_so(tmp_path: Path) -> None:
    assert pasted_path('"~/a.pt"') == Path.home() / "a.pt"
    odd = tmp_path / "'a.pt'"
    odd.touch()
    assert pasted_path(str(odd)) == odd
    assert pasted_path("") == Path()
