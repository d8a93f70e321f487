"""Lines for any console: what its encoding lacks is shown as ``?``, and never ends a command."""

from __future__ import annotations

import sys
from contextlib import suppress
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
