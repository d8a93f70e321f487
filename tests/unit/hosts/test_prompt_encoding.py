"""Long prompts in parts, and weights on states, without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hypernetworks.hosts.diffusers.prompt_encoding import (
    emphasised,
    in_parts,
    notes_on_length,
    parts_of,
    room_of,
    tokens_used,
)
from hypernetworks.hosts.diffusers.reading import unread


class Words:
    """A tokenizer with one token a word; a comma is one of its own, with the number 0."""

    model_max_length = 77
    bos_token_id, eos_token_id, pad_token_id = 901, 902, 902

    def __call__(self, texts: list[str], **_options: Any) -> Any:
        cut = [text.replace(",", " , ").split() for text in texts]
        return SimpleNamespace(
            input_ids=[
                [0 if w == "," else int(w[1:]) if w[1:].isdigit() else 1 for w in words]
                for words in cut
            ]
        )

    def convert_tokens_to_ids(self, token: str) -> int:
        assert token == ",</w>"
        return 0


def words(count: int, first: int = 1) -> str:
    return " ".join(f"w{number}" for number in range(first, first + count))


def lengths(prompt: str) -> list[int]:
    return [len(part.tokens) for part in parts_of(Words(), prompt)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", [0]),
        (words(75), [75]),
        (words(76), [75, 1]),
        (words(200), [75, 75, 50]),
        ("w1 BREAK w2 w3", [1, 2]),
        ("w1 BREAK", [1]),
        (f"{words(60)}, {words(30)}", [61, 30]),  # the phrase after the comma stays whole
        (f"{words(50)}, {words(30)}", [75, 6]),  # that comma is too far back
        (f"{words(74)}, {words(30)}", [75, 30]),
        (f"{words(75)}, {words(30)}", [75, 31]),
    ],
)
def test_a_prompt_is_cut_where_webuis_cut_it(prompt: str, expected: list[int]) -> None:
    assert lengths(prompt) == expected


class Short(Words):
    """The miniature's, which reads 30 at a time."""

    model_max_length = 32


@pytest.mark.parametrize("commas_at", [20, 22, 29, 31])
def test_captions_are_cut_where_prompts_are(commas_at: int) -> None:
    text = f"{words(commas_at)}, {words(20)}"
    tokens = Short()([text]).input_ids[0]
    of_prompt = [list(part.tokens) for part in parts_of(Short(), text)]
    assert in_parts(tokens, 30, 0) == of_prompt
    assert (len(of_prompt[0]) < 30) == (commas_at == 22), "8 tokens back at most"


def test_an_embedding_of_several_vectors_is_several_tokens() -> None:
    tokenizer = Words()
    tokenizer.added_tokens_encoder = {"w7": 7, "w7_1": 501, "w7_2": 502, "w8": 8}  # type: ignore[attr-defined]
    (part,) = parts_of(tokenizer, "w1 (w7:1.5) w8")
    assert part.tokens == [1, 7, 501, 502, 8]
    assert part.weights == [1.0, 1.5, 1.5, 1.5, 1.0]
    assert parts_of(tokenizer, f"w7 {words(73, 10)}")[1].tokens == [82]


def test_weights_go_with_their_tokens_into_the_next_part() -> None:
    first, second = parts_of(Words(), f"{words(60)}, (w61 w62:1.5) {words(20, 63)}")
    assert first.weights == [1.0] * 61
    assert second.weights[:3] == [1.5, 1.5, 1.0]
    assert second.tokens[:2] == [61, 62]


def test_the_counter_counts_as_webuis_do() -> None:
    pipeline = SimpleNamespace(tokenizer=Words())
    assert tokens_used(pipeline, words(10)) == (10, 75)
    assert tokens_used(pipeline, words(80)) == (80, 150)
    assert tokens_used(pipeline, "w1 BREAK w2") == (76, 150)
    assert room_of(SimpleNamespace(model_max_length=int(1e30))) == 75


def test_a_prompt_in_several_parts_is_told_and_none_is_cut() -> None:
    pipeline = SimpleNamespace(tokenizer=Words())
    assert unread(pipeline, "w1, (w2:1.2) [w3]") == []
    (long,) = unread(pipeline, words(80))
    assert "80 tokens" in long
    assert "2 parts" in long
    assert "negative prompt has 80" in unread(pipeline, "w1", words(80))[0]


def test_a_break_that_webuis_do_not_see_is_told() -> None:
    (line,) = notes_on_length(SimpleNamespace(tokenizer=Words()), "(w1 BREAK w2)")
    assert "out of the brackets" in line


def test_weights_keep_the_mean_and_neutral_ones_every_bit() -> None:
    states = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0)) + 0.3
    assert emphasised(states, [1.0] * 5) is states
    after = emphasised(states, [1.0, 1.4, 1.0, 0.5, 1.0])
    torch.testing.assert_close(after.mean(), states.mean())
    ratio = after / states
    torch.testing.assert_close(ratio[0, 1] / ratio[0, 0], torch.full((8,), 1.4))
    torch.testing.assert_close(ratio[0, 3] / ratio[0, 0], torch.full((8,), 0.5))
    assert bool(emphasised(torch.zeros(1, 2, 3), [1.0, 2.0]).isfinite().all())
