"""The hypernetwork entries of an image's infotext, in the same form for every host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from ..library import Entry, Library
from ..prompts.infotext import format_hashes

HASHES = "Hypernet hashes"
"""Key of the infotext."""


def hashes_line(
    library: Library, entries: Iterable[Entry], short_hash: Callable[[Entry], str | None]
) -> str:
    """The value of "Hypernet hashes" for the files that acted, by the names that tags use.

    Args:
        library: knows which of two files with one stem needs its folder's name.
        entries: what acted.
        short_hash: the first ten digits of a file's SHA-256, as webuis show them; ``None`` where
            there is none. An OSError leaves the file out: it is gone, and the image is worth more.
    """
    hashes = dict[str, str]()
    for entry in entries:
        with suppress(OSError):
            if value := short_hash(entry):
                hashes[library.name_of(entry)] = value

    return format_hashes(hashes)
