"""What looks like a tag and is none gets a line that says what to write; plain words get none."""

from __future__ import annotations

import time

import pytest

from hypernetworks.prompts import parse
from hypernetworks.prompts.near_misses import near_misses


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("<Hypernet:ink:1>", "<hypernet:ink:1>"),
        ("<HYPERNET:ink>", "<hypernet:ink>"),
        ("<hypernetwork:ink:1>", "<hypernet:ink:1>"),
        ("<hypernets:ink:1>", "<hypernet:ink:1>"),
        ("<hyper-net:ink:1>", "<hypernet:ink:1>"),
        ("< hypernet : ink : 1 >", "<hypernet:ink:1>"),
        ("<hypernet:ink:1", "<hypernet:ink:1>"),
        ("＜hypernet：ink：1＞", "<hypernet:ink:1>"),
        ("〈hypernet:ink:1〉", "<hypernet:ink:1>"),
        ("&lt;hypernet:ink:1&gt;", "<hypernet:ink:1>"),
        ("(hypernet:ink:0.5)", "<hypernet:ink:0.5>"),
        ("[hypernet:ink:0.5]", "<hypernet:ink:0.5>"),
        ("hypernet:ink:1, a cat", "<hypernet:ink:1>"),
        ("<hypernet\u00a0:ink:1>", "<hypernet:ink:1>"),
        ("<\u200bhypernet:ink:1>", "<hypernet:ink:1>"),
        ("<hypernet ink:1>", "<hypernet:ink:1>"),
        ("<hypernet;ink:1>", "<hypernet:ink:1>"),
        ("<hypernet;ink;1>", "<hypernet:ink:1>"),
        ("<hypernet=ink:1>", "<hypernet:ink:1>"),
        ("<hypenet:ink:1>", "<hypernet:ink:1>"),
        ("<hyppernet:ink:1>", "<hypernet:ink:1>"),
        ("<hyper:ink:1>", "<hypernet:ink:1>"),
    ],
)
def test_near_misses_are_told(text: str, right: str) -> None:
    clean, tags = parse(f"a red apple {text}")
    assert tags == []
    [line] = near_misses(clean, loras=True)
    assert line.endswith(f"write {right}")


def test_in_a_negative_prompt_the_prompt_is_the_right_place() -> None:
    [line] = near_misses("<Hypernet:ink:1>", loras=True, negative=True)
    assert line.endswith("write <hypernet:ink:1> in the prompt")


@pytest.mark.parametrize("text", ["<lora:ink:1>", "<lyco:a>", "<LoRA:b:0.5:lbw=OUTD>"])
def test_loras_where_none_can_act(text: str) -> None:
    assert near_misses(text, loras=True) == []
    [line] = near_misses(text, loras=False)
    assert text in line


@pytest.mark.parametrize(
    "text",
    [
        "a hypernetwork",
        "hypernet: what it is",
        "a < b > c",
        "(red:1.5)",
        "<lorax>",
        "<wildcard:ink:1>",
        "<hyperbole of words>",
        "<hyperlink:somewhere>",
        "hypernets, nets",
    ],
)
def test_plain_words_are_none(text: str) -> None:
    assert near_misses(text, loras=False) == []


def test_a_tag_that_works_is_none() -> None:
    assert near_misses(parse("a <hypernet:ink:1> b")[0], loras=False) == []


@pytest.mark.parametrize(
    "piece", ["<hypernet:", "hypernet:", "&lt;", "<lora:", "( ", "hyper ", "<hypenet;a "]
)
def test_long_texts_take_no_time(piece: str) -> None:
    began = time.monotonic()
    near_misses(piece * (1 << 17), loras=False)
    assert time.monotonic() - began < 20
