"""Text encoder states, encoded once per caption and kept; whole runs of captions are encoded ahead,
in one go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

Condition = Mapping[str, torch.Tensor]
"""The UNet's conditions for one text: ``context`` ``(tokens, dim)``, and whatever else the model
family needs.
"""
Encode = Callable[[Sequence[str]], Sequence[Condition]]
"""Texts -> their conditions.

May move the text encoder to its device and away again: it is called seldom.
"""
MOST_KEPT = 4096
"""Conditions that are kept; the one unused for longest goes first.

(77 x 768 numbers are 231 KiB in fp32.)
"""


class Contexts:
    """A cache of conditions by text.

    Args:
        encode: encodes those that are missing.
        most: how many are kept.
    """

    def __init__(self, encode: Encode, most: int = MOST_KEPT) -> None:
        self._encode, self._most = encode, most
        self._kept: OrderedDict[str, Condition] = OrderedDict()
        self.encoded = 0

    def prepare(self, texts: Iterable[str]) -> None:
        """Encode what is missing of ``texts``, at once."""
        wanted = dict.fromkeys(texts)
        # What is wanted now must not be what is dropped below.
        for text in wanted:
            if text in self._kept:
                self._kept.move_to_end(text)

        missing = [text for text in wanted if text not in self._kept]
        if missing:
            with torch.no_grad():
                self._kept.update(zip(missing, self._encode(missing), strict=True))
            self.encoded += len(missing)

        # Never fewer than one batch needs, whatever the limit.
        while len(self._kept) > max(self._most, len(wanted)):
            self._kept.popitem(last=False)

    def stack(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Conditions of a batch, each ``(batch, …)``."""
        self.prepare(texts)
        found = [self._kept[text] for text in texts]
        return {key: torch.stack([condition[key] for condition in found]) for key in found[0]}
