"""Finds the parts of a prompt that are read otherwise than a user of webuis may expect."""

from __future__ import annotations

import re
from typing import Any

from .prompt_encoding import notes_on_length

_EDITING = re.compile(r"\[[^\[\]\n]{0,200}?(?::\s*\d*\.?\d+\s*|\|[^\[\]\n]{0,200})\]")
_AND = re.compile(r"\bAND\b")


def unread(pipeline: Any, prompt: str, negative: str = "") -> list[str]:
    """Lines for the user about prompts without their tags.

    Args:
        pipeline: of diffusers; its tokenizer says how much the model reads at once.
        prompt, negative: as the text encoder will get them.
    """
    of_negative = [
        line.replace("the prompt", "the negative prompt")
        for line in notes_on_length(pipeline, negative)
    ]
    return [*_syntax(prompt), *notes_on_length(pipeline, prompt), *of_negative]


def _syntax(prompt: str) -> list[str]:
    found = [
        match[0] for pattern in (_EDITING, _AND) if (match := pattern.search(prompt)) is not None
    ]
    if not found:
        return []
    shown = ", ".join(text if len(text) <= 40 else f"{text[:40]}…" for text in found)
    return [f"{shown}: prompt editing and AND are read as plain words here: remove them"]
