"""Changing the tags of a prompt and nothing else of it."""

from __future__ import annotations

from collections.abc import Callable

from .tags import Tag, parse


def rewrite_tags(prompt: str, change: Callable[[Tag], Tag | None]) -> str:
    """The prompt with ``change(tag)`` in the place of each tag, ``None`` taking it out; every other
    byte stays.

    Where a tag is taken out, one of the blanks around it goes too, so that none is doubled and none
    comes first.
    """
    done, end = "", 0
    for tag in parse(prompt)[1]:
        changed = change(tag)
        done += prompt[end : tag.start]
        end = tag.start + len(str(tag))
        if changed is not None:
            done += str(changed)
        elif prompt[end : end + 1] == " " and (not done or done[-1].isspace()):
            end += 1
        elif end == len(prompt) and done.endswith(" "):
            done = done[:-1]

    return done + prompt[end:]


def add_tag(prompt: str, tag: Tag) -> str:
    """The prompt with a tag at its end, and a blank before it."""
    gap = "" if not prompt or prompt[-1].isspace() else " "
    return f"{prompt}{gap}{tag}"
