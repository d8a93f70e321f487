"""Changes the tags of a prompt and nothing else in it."""

from __future__ import annotations

from collections.abc import Callable

from .tags import Tag, parse


def rewrite_tags(prompt: str, change: Callable[[Tag], Tag | None]) -> str:
    """Replace each tag by ``change(tag)``, or remove it for ``None``; all other text stays.

    With a removed tag, one of the blanks around it is removed too, so that no blank is doubled and
    none comes first.
    """
    # From the tags' positions, not by replacing text: equal tags may get different values.
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
    """The prompt with a tag at its end, after a blank."""
    gap = "" if not prompt or prompt[-1].isspace() else " "
    return f"{prompt}{gap}{tag}"
