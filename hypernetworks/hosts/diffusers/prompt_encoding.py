"""Prompts of any length, with attention syntax, as the UNet's conditions: what webuis make of them.

A prompt is read in parts of as many tokens as the text encoder takes (75 for SD1, SD2 and SDXL, 30
for the miniature), each with its own start and end; the parts' states follow one another in the
context. Weights multiply the states of their tokens, and the part's mean stays as it was.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...prompts.attention import BREAK, Weighted, has_lost_break, weighted_parts

USUAL_ROOM, USUAL_BACKTRACK = 75, 20
"""Tokens of a part, and how far before its end a comma may be at which the part ends instead: the
default of webuis' setting "Prompt word wrap length limit".
"""
_TOKENIZING = threading.Lock()
"""Tokenizers of transformers can't be used by two threads at once."""


@dataclass(frozen=True)
class Part:
    """Tokens that the text encoder reads at once, without those for start and end."""

    tokens: Sequence[int] = ()
    weights: Sequence[float] = ()


@dataclass(frozen=True)
class Conditions:
    """What a pipeline takes in place of prompts.

    Attributes:
        context, negative_context: ``(1, tokens, dim)``, equally long.
        pooled, negative_pooled: ``(1, dim)``, of SDXL.
    """

    context: torch.Tensor
    negative_context: torch.Tensor
    pooled: torch.Tensor | None = None
    negative_pooled: torch.Tensor | None = None

    def arguments(self) -> dict[str, torch.Tensor]:
        """As arguments of a diffusers pipeline."""
        given = {"prompt_embeds": self.context, "negative_prompt_embeds": self.negative_context}
        if self.pooled is not None and self.negative_pooled is not None:
            given["pooled_prompt_embeds"] = self.pooled
            given["negative_pooled_prompt_embeds"] = self.negative_pooled
        return given


def room_of(tokenizer: Any) -> int:
    """How many tokens a text encoder reads at once, besides start and end."""
    most = getattr(tokenizer, "model_max_length", None)
    return most - 2 if isinstance(most, int) and 2 < most < 100_000 else USUAL_ROOM


def parts_of(tokenizer: Any, prompt: str) -> list[Part]:
    """The parts of a prompt without tags; at least one, which may be empty."""
    pieces = weighted_parts(prompt)
    tokens = tokens_of(tokenizer, [piece.text for piece in pieces])
    return _filled(pieces, tokens, room_of(tokenizer), comma_of(tokenizer))


def tokens_of(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, uncut, without those for start and end.

    A textual inversion of several vectors, as ``load_textual_inversion`` adds it, is one word in
    the text and several tokens.
    """
    with _TOKENIZING:
        found: list[list[int]] = tokenizer(
            list(texts), truncation=False, add_special_tokens=False, verbose=False
        ).input_ids

    vectors = _vectors_of_embeddings(tokenizer)
    if not vectors:
        return found
    return [[one for token in ids for one in vectors.get(token, [token])] for ids in found]


def _vectors_of_embeddings(tokenizer: Any) -> dict[int, list[int]]:
    """All tokens of an embedding by its first; diffusers numbers the others ``name_1``, ``name_2``,
    …
    """
    added: dict[str, int] = getattr(tokenizer, "added_tokens_encoder", {})
    vectors: dict[int, list[int]] = {}
    for name, token in added.items():
        if f"{name}_1" in added:
            names = (f"{name}_{number}" for number in itertools.count(1))
            others = itertools.takewhile(added.__contains__, names)
            vectors[token] = [token, *(added[other] for other in others)]
    return vectors


def _filled(
    pieces: Sequence[Weighted], tokens: Sequence[Sequence[int]], room: int, comma: int | None
) -> list[Part]:
    """Tokens in parts of at most ``room``: a new one where it is full, and after ``BREAK``."""
    sections: list[tuple[list[int], list[float]]] = [([], [])]
    for piece, ids in zip(pieces, tokens, strict=True):
        if piece == BREAK:
            sections.append(([], []))
        else:
            sections[-1][0].extend(ids)
            sections[-1][1].extend([piece.weight] * len(ids))

    parts = list[Part]()
    for own, weights in sections:
        begin = 0
        for part in in_parts(own, room, comma):
            parts.append(Part(part, weights[begin : begin + len(part)]))
            begin += len(part)

    # Nothing after the last BREAK is no part; nothing at all is one.
    return parts if parts[-1].tokens or len(parts) == 1 else parts[:-1]


def in_parts(tokens: Sequence[int], room: int, comma: int | None) -> list[list[int]]:
    """Tokens in parts of at most ``room``; at least one, which may be empty.

    A part that would end soon after a comma ends at the comma, so that no phrase is cut in two. The
    same rule for prompts and for captions, or a network would see other parts than it learned.
    """
    parts, rest = list[list[int]](), list(tokens)
    backtrack = USUAL_BACKTRACK * room // USUAL_ROOM
    while len(rest) > room:
        end = room
        if rest[room] != comma:  # a comma may stand alone at the beginning of a part
            commas = [i for i in range(room) if rest[i] == comma and room - i <= backtrack]
            end = commas[-1] + 1 if commas else room
        parts.append(rest[:end])
        rest = rest[end:]
    return [*parts, rest]


def comma_of(tokenizer: Any) -> int | None:
    """The token of a comma that ends a word; ``None`` where the vocabulary has none."""
    found: int = tokenizer.convert_tokens_to_ids(",</w>")
    return None if found == getattr(tokenizer, "unk_token_id", None) else found


def tokens_used(pipeline: Any, prompt: str) -> tuple[int, int]:
    """How many tokens a prompt takes, and how many there are until another part begins.

    As webuis count: a part that ended early counts as full.
    """
    room = room_of(pipeline.tokenizer)
    parts = parts_of(pipeline.tokenizer, prompt)
    return (len(parts) - 1) * room + len(parts[-1].tokens), len(parts) * room


def notes_on_length(pipeline: Any, prompt: str) -> Iterator[str]:
    """Lines for the user about a prompt without tags that is read in several parts."""
    pieces = weighted_parts(prompt)
    if has_lost_break(pieces):
        yield "BREAK inside brackets is read as a word, as in webuis: move it out of the brackets"

    room, parts = room_of(pipeline.tokenizer), parts_of(pipeline.tokenizer, prompt)
    if len(parts) > 1 and BREAK not in pieces:
        count = sum(len(part.tokens) for part in parts)
        yield (
            f"the prompt has {count} tokens: the model reads {room} at a time, so it was read in "
            f"{len(parts)} parts"
        )


def conditions(pipeline: Any, prompt: str, negative: str) -> Conditions:
    """The conditions of a job.

    The shorter of the two prompts is filled up with empty parts, as by webuis' setting "Pad
    prompt/negative prompt to be same length": both are computed in one batch.

    Args:
        pipeline: of diffusers, for SD1, SD2 or SDXL.
        prompt, negative: without tags.
    """
    encoders = [(pipeline.tokenizer, pipeline.text_encoder)]
    is_sdxl = getattr(pipeline, "text_encoder_2", None) is not None
    if is_sdxl:
        encoders.append((pipeline.tokenizer_2, pipeline.text_encoder_2))

    with torch.inference_mode():
        found = [_encoded(*one, (prompt, negative), is_sdxl) for one in encoders]
    contexts = [torch.cat([one[side][0] for one in found], dim=-1) for side in (0, 1)]
    pooled = [found[-1][side][1] for side in (0, 1)]  # SDXL's are those of its second encoder
    return Conditions(contexts[0], contexts[1], pooled[0], pooled[1])


_States = tuple[torch.Tensor, torch.Tensor | None]


def _encoded(
    tokenizer: Any, encoder: Any, prompts: tuple[str, str], is_sdxl: bool
) -> list[_States]:
    """States, and SDXL's pooled ones, of prompt and negative prompt by one text encoder."""
    in_parts = [parts_of(tokenizer, prompt) for prompt in prompts]
    count = max(map(len, in_parts))

    found = []
    for parts in in_parts:
        filled = [*parts, *(Part() for _ in range(count - len(parts)))]
        states = [_states(part, tokenizer, encoder, is_sdxl) for part in filled]
        found.append((torch.cat([one for one, _ in states], dim=1), states[0][1]))
    return found


def _states(part: Part, tokenizer: Any, encoder: Any, is_sdxl: bool) -> _States:
    """States ``(1, tokens, dim)`` of one part, with its weights."""
    tokens = torch.tensor([padded(tokenizer, part.tokens)], device=encoder.device)
    states, pooled = states_of(encoder, tokens, is_sdxl=is_sdxl)
    blank = room_of(tokenizer) - len(part.tokens)
    return emphasised(states, [1.0, *part.weights, *[1.0] * (blank + 1)]), pooled


def padded(tokenizer: Any, tokens: Sequence[int]) -> list[int]:
    """The tokens of one part, with its start and end, as long as the text encoder reads at once."""
    blank = room_of(tokenizer) - len(tokens)
    end = [tokenizer.eos_token_id, *[tokenizer.pad_token_id] * blank]
    return [tokenizer.bos_token_id, *tokens, *end]


def states_of(encoder: Any, tokens: torch.Tensor, *, is_sdxl: bool, clip_skip: int = 1) -> _States:
    """The states that the UNet reads, and the pooled ones of SDXL's second encoder.

    Args:
        encoder: a text encoder of transformers.
        tokens: ``(parts, length)``, on its device.
        is_sdxl: its states are those of one layer earlier, and not normed.
        clip_skip: as in AUTOMATIC1111: 1 for the last layer, 2 for the one before.

    Returns:
        ``(parts, length, dim)``, and ``(parts, dim)`` or ``None``.
    """
    if not is_sdxl and clip_skip == 1:
        return encoder(tokens)[0], None

    output = encoder(tokens, output_hidden_states=True)
    if is_sdxl:
        pooled = output[0] if output[0].ndim == 2 else None
        return output.hidden_states[-1 - clip_skip], pooled
    norm = getattr(encoder, "text_model", encoder).final_layer_norm
    return norm(output.hidden_states[-clip_skip]), None


def emphasised(states: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """States ``(1, tokens, dim)`` times their tokens' weights, with the mean that they had before.

    Computed in fp32, returned in the dtype of the states. Neutral weights change no bit.
    """
    if all(weight == 1 for weight in weights):
        return states

    before = states.float()
    factors = torch.tensor(weights, dtype=torch.float32, device=states.device)
    after = before * factors[:, None]
    # A mean near 0 says nothing about the strength, and dividing by it would blow the states up.
    mean = after.mean()
    scale = before.mean() / mean if bool(mean != 0) else 1.0
    return (after * scale).to(states.dtype)
