"""Text files of lines: prompts, captions, JSON by line, passwords."""

from __future__ import annotations

import re


def lines_of(text: str) -> list[str]:
    """The lines of a text, which end at newlines alone.

    ``str.splitlines()`` also ends them at form feeds, U+0085, U+2028 and others, which are part of
    what people paste into captions and prompts, and which JSON may have within a string.
    """
    lines = re.split(r"\r\n|\r|\n", text)
    return lines if lines[-1] else lines[:-1]
