"""Gains that are learned with a network: how strongly each of its MLPs acts.

An MLP's last layer is learned as a gain times weights, ``W = g V``. The gain has a higher rate than
the weights, and moves all of them at once. Files hold ``W``: no program sees that there was a gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from ..engine.network import Hypernetwork, Mlp
from .averaging import write_values

RATE = 10.0
"""A gain's learning rate, in multiples of the weights'; see docs/training.md, "Tried since"."""
GRADIENT = 1e-3
"""What gradients of gains are multiplied by.

All gradients are clipped by one norm, and a few numbers with large gradients must not decide it.
Adam's steps don't depend on the scale of a gradient.
"""


class Gains:
    """The last layers of a network as products, for an optimiser.

    The network's own parameters stay what the UNet is given. Their gradients are handed on by
    :meth:`collect`, before a step; :meth:`write` brings what was learned back, after it.

    Args:
        network: whose MLPs end in a linear layer; those that don't have no gain.
    """

    def __init__(self, network: Hypernetwork) -> None:
        mlps = [mlp for pair in network.pairs.values() for mlp in pair]
        self._layers = [layer for mlp in mlps if (layer := _last_layer(mlp)) is not None]
        self._weights = [
            [nn.Parameter(p.detach().clone()) for p in layer.parameters()] for layer in self._layers
        ]
        self._rest = _without(network.parameters(), self._own())
        device = next(network.parameters()).device
        self._gains = nn.Parameter(torch.zeros(len(self._layers), device=device))

    def parameters(self) -> list[nn.Parameter]:
        """What the optimiser learns, in place of the network's parameters."""
        return [*self._rest, *self._flat(), self._gains]

    @property
    def values(self) -> torch.Tensor:
        """The gains, fp32 ``(MLPs,)``; 1 at the start."""
        return (1 + RATE * self._gains).detach()

    @torch.no_grad()
    def collect(self) -> None:
        """Hand the gradients of the network's last layers on, and forget them there."""
        found = torch.zeros_like(self._gains)
        values = self.values
        for number, (layer, weights) in enumerate(zip(self._layers, self._weights, strict=True)):
            for own, weight in zip(layer.parameters(), weights, strict=True):
                if own.grad is None:
                    continue
                found[number] += (own.grad * weight).sum()
                weight.grad, own.grad = own.grad * values[number], None

        self._gains.grad = found * (RATE * GRADIENT)

    @torch.no_grad()
    def write(self) -> None:
        """Write the products into the network."""
        for gain, layer, weights in zip(self.values, self._layers, self._weights, strict=True):
            for own, weight in zip(layer.parameters(), weights, strict=True):
                own.copy_(gain * weight)

    def forget(self) -> None:
        """Drop the gradients of the network's last layers."""
        for own in self._own():
            own.grad = None

    def state(self) -> list[torch.Tensor]:
        """Live tensors: the weights, then the gains as they are learned."""
        return [p.detach() for p in (*self._flat(), self._gains)]

    def restore(self, state: Sequence[torch.Tensor]) -> None:
        """Take up what :meth:`state` gave; the network has its products already.

        Raises:
            ValueError: it is another network's.
        """
        mine = [*self._flat(), self._gains]
        if [p.shape for p in mine] != [value.shape for value in state]:
            raise ValueError("the gains are those of another network")
        write_values(mine, state)

    def _own(self) -> list[nn.Parameter]:
        return [own for layer in self._layers for own in layer.parameters()]

    def _flat(self) -> list[nn.Parameter]:
        return [weight for weights in self._weights for weight in weights]


def _last_layer(mlp: Mlp) -> nn.Linear | None:
    modules = [module for module in mlp.linear if not isinstance(module, nn.Dropout)]
    return modules[-1] if isinstance(modules[-1], nn.Linear) else None


def _without(
    parameters: Iterable[nn.Parameter], others: Sequence[nn.Parameter]
) -> list[nn.Parameter]:
    left_out = set(map(id, others))
    return [p for p in parameters if id(p) not in left_out]
