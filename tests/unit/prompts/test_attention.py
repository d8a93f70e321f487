"""The attention syntax of webuis: A1111's own examples, and texts that are not balanced."""

from __future__ import annotations

import time

import pytest

from hypernetworks.prompts.attention import (
    BREAK,
    MOST_NESTED,
    Weighted,
    has_lost_break,
    weighted_parts,
)


def read(prompt: str) -> list[tuple[str, float]]:
    return [(part.text, part.weight) for part in weighted_parts(prompt)]


DOCUMENTED = {
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    r"\(literal\]": [("(literal]", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0),
        ("house", 1.5730000000000004),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641000000000006),
        (".", 1.1),
    ],
}
"""What A1111 states about its own parser, to the last bit."""


@pytest.mark.parametrize("prompt", DOCUMENTED)
def test_the_documented_examples(prompt: str) -> None:
    assert read(prompt) == DOCUMENTED[prompt]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", [("", 1.0)]),
        ("[less] of it", [("less", 1 / 1.1), (" of it", 1.0)]),
        ("(a: 1.5 )", [("a", 1.5)]),
        ("(a:-0.5)", [("a", -0.5)]),
        ("time 10:30)", [("time 10:30)", 1.0)]),  # never opened
        ("(a:1.2.3)", [("a:1.2.3)", 1.1)]),  # no number: text, and the bracket stays open
        (r"a \(b\) \\ c\d", [("a (b) \\ cd", 1.0)]),
        ("a] b)", [("a] b)", 1.0)]),
        ("a BREAK b", [("a", 1.0), ("BREAK", -1.0), ("b", 1.0)]),
        ("BREAKFAST for two", [("BREAKFAST for two", 1.0)]),
    ],
)
def test_brackets_numbers_escapes_and_breaks(
    prompt: str, expected: list[tuple[str, float]]
) -> None:
    assert read(prompt) == expected


def test_a_break_inside_brackets_is_a_word_as_in_webuis() -> None:
    assert not has_lost_break(weighted_parts("(a) BREAK (b)"))
    assert BREAK in weighted_parts("(a) BREAK (b)")
    lost = weighted_parts("(a BREAK b)")
    assert BREAK not in lost
    assert has_lost_break(lost)


@pytest.mark.parametrize("unit", ["(a", "[a:", ": ", "( ", " " * 10, "BREAK ", "\\", "(a:1.1)"])
def test_time_grows_with_the_length_alone(unit: str) -> None:
    began = time.process_time()
    weighted_parts(unit * (20_000 // len(unit)))  # the longest prompt that the studio takes
    assert time.process_time() - began < 2


def test_deep_nesting_is_cut() -> None:
    deep = weighted_parts("(" * 500 + "a")
    assert deep[0] == Weighted("(" * (500 - MOST_NESTED) + "a", deep[0].weight)
