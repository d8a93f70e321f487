"""The hypernetwork entries of an image's infotext, in the same form for every host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

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


class LineOfImages(str):
    """The line of a whole batch, which A1111 1.10 and its relatives call for that of each image.

    Older hosts, and whatever turns the infotext's values into JSON, take it as the plain text that
    it is.
    """

    def __new__(cls, whole: str, lines: Sequence[str]) -> LineOfImages:
        """Args: the line of all images, and that of each."""
        made = super().__new__(cls, whole)
        made._lines = tuple(lines)
        return made

    _lines: tuple[str, ...]

    def __call__(self, index: int = 0, use_main_prompt: bool = False, **_: Any) -> str | None:
        """What the infotext of one image says; ``None`` leaves the key out.

        Args:
            index: of the image, in the batch or in the job.
            use_main_prompt: it is the infotext of the grid, with all images.
        """
        return str(self) if use_main_prompt else self._lines[index % len(self._lines)] or None

    def __getnewargs__(self) -> tuple[str, tuple[str, ...]]:  # type: ignore[override]
        return str(self), self._lines
