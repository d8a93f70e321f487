"""Linear networks collapsed: any number of linear layers is one affine map ``x -> A x + b``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class AffineMap:
    """``x -> A x + b``.

    Attributes:
        weight: A, ``(dim, dim)``.
        bias: b, ``(dim,)``.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, context: torch.Tensor) -> torch.Tensor:
        """Map ``(…, dim)`` in the map's own dtype and device."""
        return F.linear(context, self.weight, self.bias)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> AffineMap:
        """The same map elsewhere; itself when nothing changes."""
        return AffineMap(self.weight.to(device, dtype), self.bias.to(device, dtype))


def collapse(layers: Sequence[nn.Module]) -> AffineMap:
    """Multiply a chain of linear layers through, in float64 (dropouts are the identity outside training).

    ``W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2)``.
    """
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    weight, bias = linears[0].weight.detach().double(), linears[0].bias.detach().double()
    for layer in linears[1:]:
        outer = layer.weight.detach().double()
        weight, bias = outer @ weight, torch.addmv(layer.bias.detach().double(), outer, bias)
    return AffineMap(weight, bias)


def chain(maps: Sequence[tuple[AffineMap, float]]) -> AffineMap:
    """One map for a stack of linear networks: what ``x + m1 f1(x)``, then ``x + m2 f2(x)``, … add to x in total.

    Args:
        maps: float64 maps with their multipliers, in the order of application.
    """
    dim = maps[0][0].bias.shape[0]
    identity = torch.eye(dim, dtype=torch.float64, device=maps[0][0].bias.device)
    weight, bias = identity, torch.zeros_like(identity[0])
    for affine, multiplier in maps:
        step = identity + multiplier * affine.weight.double()
        weight, bias = step @ weight, torch.addmv(multiplier * affine.bias.double(), step, bias)
    return AffineMap(weight - identity, bias)
