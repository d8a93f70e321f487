"""An ordered stack of networks, applied one after the other to a context."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .network import Hypernetwork, without_autocast

KEY, VALUE = 0, 1
"""The two sides of a pair."""


class Stack:
    """Networks in the order of their tags; the same network may stand in it several times.

    The arithmetic of every network is ``x + multiplier * mlp(x)``, in fp32 at least; the result is cast back to the
    context's dtype once, at the end.
    """

    def __init__(self, networks: Sequence[Hypernetwork]) -> None:
        self.networks = tuple(networks)

    @property
    def widths(self) -> tuple[int, ...]:
        """Context widths that any of the networks transforms, rising."""
        return tuple(sorted({dim for network in self.networks for dim in network.widths}))

    def transform(self, context: torch.Tensor, side: int, multipliers: Sequence[float]) -> torch.Tensor:
        """The context for one side, or the same object when nothing applies.

        Args:
            context: ``(batch, tokens, dim)``; not changed.
            side: :data:`KEY` or :data:`VALUE`.
            multipliers: one per network, 0 to leave it out.
        """
        dim = context.shape[-1]
        active = [(n, m) for n, m in zip(self.networks, multipliers, strict=True) if m and dim in n.pairs]
        if not active:
            return context
        with without_autocast(context.device.type):
            result = context.to(torch.promote_types(context.dtype, torch.float32))
            for network, multiplier in active:
                delta = network.delta(dim, side, result.device, result.dtype)
                result = torch.add(result, delta(result), alpha=multiplier)
            return result.to(context.dtype)
