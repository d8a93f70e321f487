"""Finds the parts of a prompt that the text encoder ignores, or reads as plain words where a webui
would not.
"""

from __future__ import annotations

import re
from typing import Any

_EMPHASIS = re.compile(r"\([^()\n]{1,200}?:\s*-?\d*\.?\d+\s*\)")
_EDITING = re.compile(r"\[[^\[\]\n]{0,200}?(?::\s*\d*\.?\d+\s*|\|[^\[\]\n]{0,200})\]")
_WORDS = re.compile(r"\b(?:BREAK|AND)\b")


def unread(pipeline: Any, prompt: str) -> list[str]:
    """Lines for the user about a prompt without its tags.

    Args:
        pipeline: of diffusers; its tokenizer says how much the model reads.
        prompt: as the text encoder will get it.
    """
    return [*_syntax(prompt), *_rest(getattr(pipeline, "tokenizer", None), prompt)]


def _syntax(prompt: str) -> list[str]:
    found = [
        match[0]
        for pattern in (_EMPHASIS, _EDITING, _WORDS)
        if (match := pattern.search(prompt)) is not None
    ]
    if not found:
        return []
    shown = ", ".join(text if len(text) <= 40 else f"{text[:40]}…" for text in found)
    return [
        f"{shown}: the webui syntax for emphasis, prompt editing, BREAK and AND is read as plain words here: remove it"
    ]


def _rest(tokenizer: Any, prompt: str) -> list[str]:
    """The end of a prompt that is longer than the model reads."""
    most = getattr(tokenizer, "model_max_length", None)
    if tokenizer is None or not isinstance(most, int) or most > 100_000:
        return []
    tokens = tokenizer(prompt, truncation=False, verbose=False).input_ids
    if len(tokens) <= most:
        return []
    left_out = str(tokenizer.decode(tokens[most - 1 : -1])).strip()
    shown = left_out if len(left_out) <= 80 else f"{left_out[:80]}…"
    return [
        f"the prompt has {len(tokens) - 2} tokens and the model reads {most - 2}: the rest is ignored, "
        f'starting at "{shown}"'
    ]
