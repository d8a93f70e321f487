"""Which image of a batch each row of a UNet call belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Rows:
    """Follows the rows of one sampler step through the host's UNet calls.

    Forge and its relatives say with every call how many conditions it holds, each for the whole
    batch. AUTOMATIC1111 says nothing, but goes through its rows in a fixed order: the conditions of
    each image (several with AND), then the unconditional ones, in one call or in several (low
    memory, prompts of different lengths).
    """

    def __init__(self, pictures: int) -> None:
        self._pictures = pictures
        self._order: list[int] = []
        self._next = 0
        self.lost = False

    def begin_step(self, conditions: Sequence[int] | None) -> None:
        """A step begins.

        Args:
            conditions: how many conditions each image has; ``None`` for one each.
        """
        # A step counts anew: an interrupted one may have left rows that nobody asked for.
        counts = list(conditions) if conditions is not None else [1] * self._pictures
        self._order = [picture for picture, count in enumerate(counts) for _ in range(count)]
        self._next = 0
        self.lost = self.lost or len(counts) != self._pictures

    def of_call(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> list[int] | None:
        """The image of each row of a UNet call, from its arguments; ``None`` when it can't be
        told.
        """
        first = arguments[0] if arguments else next(iter(named.values()))
        count = int(first.shape[0])
        options = named.get("transformer_options")
        conditions = options.get("cond_or_uncond") if isinstance(options, dict) else None
        rows = self._by_conditions(count, len(conditions)) if conditions else self._by_order(count)
        self.lost = self.lost or rows is None
        return rows

    def _by_conditions(self, count: int, conditions: int) -> list[int] | None:
        if count != conditions * self._pictures:
            return None
        return [row % self._pictures for row in range(count)]

    def _by_order(self, count: int) -> list[int] | None:
        rows = []
        for _ in range(count):
            # Behind the conditions come the unconditional rows, one per image.
            behind = self._next - len(self._order)
            rows.append(self._order[self._next] if behind < 0 else behind % self._pictures)
            self._next += 1
        return rows if self._order else None
