r"""Attention syntax of webuis: ``(word:1.2)``, ``(word)``, ``[word]``, ``BREAK`` and escapes.

Stdlib only.

=====================  ==========================================================================
written                meaning
=====================  ==========================================================================
``(words)``            attention to the words times 1.1
``(words:1.3)``        attention times 1.3
``[words]``            attention divided by 1.1
``\(`` ``\)`` ``\[``   the character itself; a backslash before anything else is dropped
``\]`` ``\\``
``BREAK``              the rest begins a new part of 75 tokens (outside brackets only)
=====================  ==========================================================================

Brackets nest, and their factors multiply. A bracket that is never closed reaches to the end; one
that was never opened is text. All of it as AUTOMATIC1111 reads it, to the last bit of a weight.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

STRONGER, WEAKER = 1.1, 1 / 1.1
"""Factors of a pair of round, and of square, brackets without a number."""
MOST_NESTED = 64
"""Brackets that may be open at once; more are text, so that no prompt takes quadratic time."""


@dataclass(frozen=True)
class Weighted:
    """Some words of a prompt.

    Attributes:
        text: without the brackets around it.
        weight: factor of the attention to it; 1 is neutral.
    """

    text: str
    weight: float = 1.0


BREAK = Weighted("BREAK", -1.0)
"""Stands between two parts of a prompt; no words can have this text and weight."""

_PART = re.compile(
    r"""
      (?P<escaped> \\ [()\[\]\\]? )
    | : \s* (?P<number> [+-]? [.\d]+ ) \s* \)
    | (?P<bracket> [()\[\]] )
    | (?P<words> [^\\()\[\]:]+ | : )
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"\bBREAK\b")


def weighted_parts(prompt: str) -> list[Weighted]:
    """The words of a prompt with their weights, in order; ``BREAK`` stands between parts.

    Takes time proportional to the prompt's length.

    >>> [(part.text, part.weight) for part in weighted_parts("an (important) word")]
    [('an ', 1.0), ('important', 1.1), (' word', 1.0)]
    """
    reader = _Reader()
    for match in _PART.finditer(prompt):
        kind, text = match.lastgroup, match[0]
        if kind == "escaped":
            reader.add(text[1:])
        elif kind == "number":
            reader.close_with(match["number"], text)
        elif kind == "bracket":
            reader.bracket(text)
        else:
            reader.add_words(text)

    return reader.finish()


class _Reader:
    """Pieces that were read so far, and where the brackets that are open began."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._weights: list[float] = []
        self._open: dict[str, list[int]] = {"(": [], "[": []}

    def add(self, text: str, weight: float = 1.0) -> None:
        self._texts.append(text)
        self._weights.append(weight)

    def add_words(self, text: str) -> None:
        """Words, cut at each ``BREAK``; the blanks around it go."""
        parts = _BREAK.split(text)
        for number, part in enumerate(parts):
            if number:
                self.add(BREAK.text, BREAK.weight)
            kept = part.lstrip() if number else part
            self.add(kept.rstrip() if number < len(parts) - 1 else kept)

    def bracket(self, text: str) -> None:
        if text in "([":
            has_room = sum(map(len, self._open.values())) < MOST_NESTED
            if has_room:
                self._open[text].append(len(self._texts))
            else:
                self.add(text)
            return

        opening, factor = ("(", STRONGER) if text == ")" else ("[", WEAKER)
        self._close(opening, factor, text)

    def close_with(self, number: str, text: str) -> None:
        """A round bracket that ends in a number; where that is none (``1.2.3``), it is text."""
        try:
            factor = float(number)
        except ValueError:
            self.add(text)
            return
        self._close("(", factor, text)

    def _close(self, opening: str, factor: float, text: str) -> None:
        if self._open[opening]:
            self._multiply(self._open[opening].pop(), factor)
        else:
            self.add(text)

    def _multiply(self, begin: int, factor: float) -> None:
        # One factor after the other: webuis multiply in this order, and rounding depends on it.
        for index in range(begin, len(self._weights)):
            self._weights[index] *= factor

    def finish(self) -> list[Weighted]:
        """All pieces, neighbours of one weight joined."""
        for opening, factor in (("(", STRONGER), ("[", WEAKER)):
            for begin in self._open[opening]:
                self._multiply(begin, factor)

        found: list[tuple[list[str], float]] = []
        for text, weight in zip(self._texts, self._weights, strict=True):
            if found and found[-1][1] == weight:
                found[-1][0].append(text)
            else:
                found.append(([text], weight))

        return [Weighted("".join(texts), weight) for texts, weight in found] or [Weighted("")]


def has_lost_break(parts: list[Weighted]) -> bool:
    """Whether a ``BREAK`` stood inside brackets, where webuis read it as a word of its own."""
    return any(part.text == BREAK.text and part.weight != BREAK.weight for part in parts)
