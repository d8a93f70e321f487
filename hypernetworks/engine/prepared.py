"""What is prepared from networks for speed, kept apart from them.

Copies, pickles and exports of a network therefore contain none of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from .folding import Fold

if TYPE_CHECKING:
    from .hidden import BothSides, HiddenLayers

Delta = Callable[[torch.Tensor], torch.Tensor]
"""What a network adds to a context at multiplier 1: ``(batch, tokens, dim)`` -> the same."""


class Prepared:
    """What is kept for one network.

    Attributes:
        deltas: results of :meth:`Hypernetwork.delta`, by width, side, device and dtype; each with
            its bytes.
        hidden: results of :meth:`Hypernetwork.hidden`, by width, device and dtype; likewise.
        both: results of :meth:`Hypernetwork.both_sides`, by width, device and dtype.
        largest: results of :meth:`Hypernetwork.largest_output`, by width and side.
        folds: products with the weights of projections, made by :mod:`hypernetworks.patching`.
    """

    def __init__(self) -> None:
        self.deltas: dict[tuple[int, int, torch.device, torch.dtype], tuple[Delta, int]] = {}
        self.hidden: dict[tuple[int, torch.device, torch.dtype], tuple[HiddenLayers, int]] = {}
        self.both: dict[tuple[int, torch.device, torch.dtype], BothSides] = {}
        self.largest: dict[tuple[int, int], float] = {}
        self.folds: dict[tuple[object, ...], Fold] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        deltas = sum(added for _, added in list(self.deltas.values()))
        deltas += sum(added for _, added in list(self.hidden.values()))
        deltas += sum(both.nbytes for both in list(self.both.values()))
        return deltas + sum(fold.nbytes for fold in list(self.folds.values()))

    def keep(self, key: tuple[object, ...], fold: Fold) -> None:
        """Keep a product for the next handle, and drop those whose weights no longer exist."""
        # Over list(): another thread may add one meanwhile.
        for known, old in list(self.folds.items()):
            if old.mark.is_dead:
                self.folds.pop(known, None)
        self.folds[key] = fold

    def clear(self) -> None:
        """Drop everything."""
        self.deltas.clear()
        self.hidden.clear()
        self.both.clear()
        self.largest.clear()
        self.folds.clear()

    def clear_devices(self) -> None:
        """Drop what is on accelerators."""
        by_device: tuple[dict[Any, Any], ...] = (self.deltas, self.hidden, self.both)
        for kept in by_device:
            for key in list(kept):
                if key[-2].type != "cpu":
                    kept.pop(key, None)
        for fold_key, fold in list(self.folds.items()):
            if fold.product.device.type != "cpu":
                self.folds.pop(fold_key, None)


_OF_NETWORKS: weakref.WeakKeyDictionary[object, Prepared] = weakref.WeakKeyDictionary()


def prepared(network: object) -> Prepared:
    """What is kept for this network, as long as the network exists."""
    found = _OF_NETWORKS.get(network)
    return found if found is not None else _OF_NETWORKS.setdefault(network, Prepared())
