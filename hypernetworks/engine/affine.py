"""Linear networks collapsed: any number of linear layers is one affine map ``x -> A x + b``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .products import linear
from .tensors import for_float64


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
        return linear(context, self.weight, self.bias)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> AffineMap:
        """The same map elsewhere; itself when nothing changes."""
        return AffineMap(self.weight.to(device, dtype), self.bias.to(device, dtype))


def collapse(layers: Sequence[nn.Module], device: torch.device | None = None) -> AffineMap:
    """Multiply a chain of linear layers, in float64; dropouts are left out.

    ``W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2)``.

    Args:
        device: a device with float64; ``None`` for that of the layers if it has, else the CPU.
    """
    # In float32, the product of several layers would differ visibly from applying them in turn.
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    device = for_float64(linears[0].weight.device) if device is None else device
    weight, bias = (
        p.detach().to(device, torch.float64) for p in (linears[0].weight, linears[0].bias)
    )
    for layer in linears[1:]:
        outer = layer.weight.detach().to(device, torch.float64)
        weight, bias = (
            outer @ weight,
            torch.addmv(layer.bias.detach().to(device, torch.float64), outer, bias),
        )

    return AffineMap(weight, bias)


def chain(maps: Sequence[tuple[AffineMap, float]]) -> AffineMap:
    """One map for a stack of linear networks: all that applying them in turn adds to x.

    With ``D`` the change so far, ``x + D x`` goes through the next one: ``D + m A (I + D) = D + m
    (A + A D)``.

    Args:
        maps: with their multipliers, in the order of application; all of one dtype and device,
            which the result has.
    """
    first, multiplier = maps[0]
    weight, bias = first.weight * multiplier, first.bias * multiplier
    for affine, multiplier in maps[1:]:
        total = linear(affine.weight, weight.T.contiguous(), None).add_(affine.weight)
        bias = bias + multiplier * (affine.bias + affine.weight @ bias)
        weight = torch.add(weight, total, alpha=multiplier)

    return AffineMap(weight, bias)
