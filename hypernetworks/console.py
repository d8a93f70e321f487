"""Lines for any console: what its encoding lacks is shown as ``?``, and never ends a command.

And paths from there.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO


def say(text: str, stream: TextIO | None = None) -> None:
    """Write a line to ``stream`` (the standard output), whatever its encoding is: cp1252, ASCII in
    a C locale.

    Raises:
        BrokenPipeError: the reader has gone, as with ``inspect … | head``.
    """
    write(f"{text}\n", stream)


def write(text: str, stream: TextIO | None = None) -> None:
    """The same without the end of the line."""
    stream = sys.stdout if stream is None else stream
    if stream is None:  # pythonw, or a service without a console
        return
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "replace").decode(encoding))
    with suppress(AttributeError, ValueError):
        stream.flush()


def pasted_path(text: str) -> Path:
    """The path that a user has typed or pasted, with what systems put around it taken off.

    Windows' "Copy as path" adds quotes, its Properties dialog an invisible mark of direction; ``~``
    is the home folder. A file that is called exactly what was typed comes first.
    """
    typed = Path(text)
    try:
        if text.strip() and typed.exists():
            return typed
    except (OSError, ValueError):
        return typed
    bare = text.strip(_AROUND)
    for quote in "\"'":
        if len(bare) > 2 and bare[0] == bare[-1] == quote:
            bare = bare[1:-1].strip(_AROUND)
    try:
        return Path(bare).expanduser() if bare else typed
    except RuntimeError:  # no such user
        return Path(bare)


_AROUND = " \t\r\n\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
"""Blanks, and marks of direction that can't be seen."""
