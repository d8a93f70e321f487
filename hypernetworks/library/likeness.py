"""Finds the names that look most like a given one, for "did you mean"."""

from __future__ import annotations

import difflib
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

FEW = 300
"""Up to this many names are all compared; of more, only those that share rare pieces."""
_MOST_HITS = 4_000
_COMPARED = 40
_LONGEST = 120
_MARK = "\n"


def _letters(name: str) -> str:
    """The name in lower case, with accents and Korean syllables decomposed.

    Names that differ by one stroke are then similar.
    """
    if name.isascii():
        return name.lower()[:_LONGEST]
    return unicodedata.normalize("NFKD", name).casefold()[:_LONGEST]


class Likeness:
    """A searchable list of names; a search takes some milliseconds, even in 50,000 names.

    Args:
        names: ``folder/stem``; only the stems are compared.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._stems = [_letters(name.rpartition("/")[2]) for name in names]
        # One long text, because searching it runs in C, and a loop over the names doesn't.
        self._all = _MARK + _MARK.join(self._stems) + _MARK
        self._starts = [0, *accumulate(len(stem) + 1 for stem in self._stems)]

    def nearest(self, wanted: str, count: int = 3) -> list[str]:
        """The names most like ``wanted``, best first; none if all are too different."""
        letters = _letters(wanted.replace("\\", "/").strip().rpartition("/")[2])
        if not letters:
            return []
        numbers = range(len(self._names)) if len(self._names) <= FEW else self._likely(letters)

        matcher = difflib.SequenceMatcher(None, "", letters, autojunk=False)
        scored = []
        for number in numbers:
            matcher.set_seq1(self._stems[number])
            # Two upper limits of the ratio, which are much faster to compute.
            if matcher.real_quick_ratio() >= 0.5 and matcher.quick_ratio() >= 0.5:
                scored.append((-matcher.ratio(), number))
        return [self._names[n] for score, n in sorted(scored)[:count] if score <= -0.5]

    def _likely(self, letters: str) -> list[int]:
        """Indices of the names that share most of its pieces; rare pieces count first."""
        marked = f"{_MARK}{letters}{_MARK}"
        size = 3 if len(letters) > 4 else 2
        pieces = {marked[i : i + size] for i in range(len(marked) - size + 1)}
        by_rarity = sorted((self._all.count(piece), piece) for piece in pieces)

        # A common piece would be found in thousands of names; each may use up a part of the budget.
        hits: Counter[int] = Counter()
        left = _MOST_HITS
        for times, piece in by_rarity:
            if not times:
                continue
            share = min(times, max(left // 4, 200), left)
            hits.update(self._having(piece, share))
            left -= share
            if left <= 0:
                break
        return [number for number, _ in hits.most_common(_COMPARED)]

    def _having(self, piece: str, most: int) -> set[int]:
        found, position = set[int](), -1
        for _ in range(most):
            position = self._all.find(piece, position + 1)
            if position < 0:
                break
            found.add(min(bisect_right(self._starts, position), len(self._names)) - 1)
        return found
