"""Output for any console, and paths that users type or paste there.

The whole package writes through this module. A character that the console's encoding lacks is shown
as ``?``; with ``print``, it would end the command with an error. So is a control character: in the
name of a file, it could manipulate the terminal.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO


def say(text: str, stream: TextIO | None = None) -> None:
    """Write a line to a stream of any encoding, such as cp1252 or ASCII, and flush it.

    Args:
        text: the line, without its end.
        stream: the standard output by default.

    Raises:
        BrokenPipeError: the reader has gone, as with ``inspect … | head``.
    """
    write(text.replace("\r", "?") + "\n", stream)


def warn(text: str) -> None:
    """Write a line to the standard error, for warnings and errors: the output stays usable."""
    say(text, sys.stderr)


def write(text: str, stream: TextIO | None = None) -> None:
    """Write text as :func:`say` does, without the end of the line."""
    stream = sys.stdout if stream is None else stream
    if stream is None:  # pythonw, or a service without a console
        return
    text = text.translate(_CONTROLS)
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "replace").decode(encoding))
    with suppress(AttributeError, ValueError):
        stream.flush()


def pasted_path(text: str) -> Path:
    """The path that a user has typed or pasted, without what systems add to it.

    Windows' "Copy as path" adds quotes, its Properties dialog an invisible direction mark. ``~`` is
    the home folder. If a file has exactly the name that was typed, it is that file.
    """
    typed = Path(text)
    try:
        if text.strip() and typed.exists():
            return typed
    except (OSError, ValueError):  # too long, or with a null byte: the caller's error says so
        return typed

    bare = text.strip(_AROUND)
    for quote in "\"'":
        if len(bare) > 2 and bare[0] == bare[-1] == quote:
            bare = bare[1:-1].strip(_AROUND)

    try:
        return Path(bare).expanduser() if bare else typed
    except RuntimeError:  # no such user
        return Path(bare)


_CONTROLS = dict.fromkeys({*range(32), *range(127, 160)} - {*map(ord, "\t\n\r")}, "?")
"""Control characters by what is shown for them; not those that lines and progress are made of."""
_AROUND = " \t\r\n\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
"""Blanks, and direction marks, which are invisible."""
