"""What is made ready from networks for speed, beside them: copies, pickles and exports carry none
of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch

from .folding import Fold

Delta = Callable[[torch.Tensor], torch.Tensor]
"""What a network adds to a context at multiplier 1: ``(batch, tokens, dim)`` -> the same."""


class Prepared:
    """What is kept of one network.

    Attributes:
        deltas: by width, side, device and dtype: what :meth:`Hypernetwork.delta` gives, and its
            bytes.
        largest: by width and side: what :meth:`Hypernetwork.largest_output` gives.
        folds: products with the weights of projections, as :mod:`hypernetworks.patching` keeps
            them.
    """

    def __init__(self) -> None:
        self.deltas: dict[tuple[int, int, torch.device, torch.dtype], tuple[Delta, int]] = {}
        self.largest: dict[tuple[int, int], float] = {}
        self.folds: dict[tuple[object, ...], Fold] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        deltas = sum(added for _, added in list(self.deltas.values()))
        return deltas + sum(fold.nbytes for fold in list(self.folds.values()))

    def keep(self, key: tuple[object, ...], fold: Fold) -> None:
        """Keep a product for the next handle. Those with weights that are gone make room."""
        for known, old in list(self.folds.items()):
            if old.mark.is_dead:
                self.folds.pop(known, None)
        self.folds[key] = fold

    def clear(self) -> None:
        """Forget everything."""
        self.deltas.clear()
        self.largest.clear()
        self.folds.clear()

    def clear_devices(self) -> None:
        """Forget what is on other devices than the CPU."""
        for key in list(self.deltas):
            if key[2].type != "cpu":
                self.deltas.pop(key, None)
        for fold_key, fold in list(self.folds.items()):
            if fold.product.device.type != "cpu":
                self.folds.pop(fold_key, None)


_OF_NETWORKS: weakref.WeakKeyDictionary[object, Prepared] = weakref.WeakKeyDictionary()


def prepared(network: object) -> Prepared:
    """What is kept of this network, until the network goes."""
    found = _OF_NETWORKS.get(network)
    return found if found is not None else _OF_NETWORKS.setdefault(network, Prepared())
