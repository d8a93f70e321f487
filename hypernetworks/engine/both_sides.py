"""One network for keys and values at once, where both read the same context: that of the text.

Such a context has few rows, so that its products take hardly more time for two sides than for one:
what costs is the number of kernels. Apart, relu takes six per side; together, six for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .affine import AffineMap
from .hidden import HiddenLayers
from .products import linear


@dataclass(frozen=True)
class BothSides:
    """The last linear layers of both sides, and the layers before them.

    Attributes:
        hidden: ``None`` for a linear network, which is one affine map.
        weight: ``(2, dim, inner)``.
        bias: ``(2, 1, dim)``.
    """

    hidden: HiddenLayers | None
    weight: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def of_maps(cls, hidden: HiddenLayers | None, maps: Sequence[AffineMap]) -> BothSides:
        """From the last layers for keys and values, of one dtype and device."""
        weights, biases = zip(*((affine.weight, affine.bias) for affine in maps), strict=True)
        return cls(hidden, torch.stack(weights), torch.stack(biases)[:, None])

    @property
    def nbytes(self) -> int:
        """Bytes of the last layers."""
        return sum(t.numel() * t.element_size() for t in (self.weight, self.bias))

    def of(self, context: torch.Tensor, multiplier: float) -> tuple[torch.Tensor, torch.Tensor]:
        """``context + multiplier * mlp(context)`` for keys and for values: computed in the dtype of
        the weights, and rounded to the context's own once.

        Args:
            context: ``(batch, tokens, dim)``; not changed.
        """
        precise = context.to(self.weight.dtype)
        rows = precise.reshape(-1, precise.shape[-1])
        made = torch.empty((2, *rows.shape), dtype=context.dtype, device=context.device)

        if self.hidden is None:
            change = linear(rows, self.weight.flatten(0, 1), self.bias.flatten())
            sides = change.view(len(rows), 2, -1).transpose(0, 1)
            torch.add(rows, sides, alpha=multiplier, out=made)
        else:
            inner = self.hidden.of_both_stacked(precise)  # some look at the batch
            total = torch.add(rows, self.bias, alpha=multiplier)
            made.copy_(total.baddbmm_(inner, self.weight.mT, alpha=multiplier))

        key, value = made.view(2, *context.shape)
        return key, value
