"""Changing the tags of a prompt and nothing else of it."""

from __future__ import annotations

from collections.abc import Callable

from .tags import Tag, parse


def rewrite_tags(prompt: str, change: Callable[[Tag], Tag | None]) -> str:
    """The prompt with ``change(tag)`` in the place of each tag, ``None`` taking it out; every other
    byte stays.
    """
    parts, end = list[str](), 0
    for tag in parse(prompt)[1]:
        changed = change(tag)
        parts += [prompt[end : tag.start], "" if changed is None else str(changed)]
        end = tag.start + len(str(tag))
    return "".join([*parts, prompt[end:]])
