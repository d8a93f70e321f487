"""How large numbers can get inside an MLP: whether half precision, which ends at 65,504, can hold
them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

LARGEST_CONTEXT = 8.0
"""Contexts of self-attention come out of a layer norm: their rows have about ``sqrt(dim)`` times
its weights.
"""
_ITERATIONS = 12
_MARGIN = 1.5  # power iteration comes from below


def largest_output(modules: Iterable[nn.Module], dim: int) -> float:
    """A safe estimate of the largest number in an MLP, for contexts ``(…, dim)`` of
    ``LARGEST_CONTEXT`` a channel.

    By the spectral norm of each layer; activations are taken to let numbers through, as none of
    them enlarges them by more than a little.
    """
    length = LARGEST_CONTEXT * math.sqrt(dim)
    found = [length]
    for module in modules:
        if isinstance(module, nn.Linear):
            weight, bias = module.weight.detach().float(), module.bias.detach().float()
            found.append(float((weight.norm(dim=1) * length + bias.abs()).max()))
            length = _MARGIN * _spectral_norm(weight) * length + float(bias.norm())
        elif isinstance(module, nn.LayerNorm):
            weight, bias = module.weight.detach().float(), module.bias.detach().float()
            length = math.sqrt(len(weight)) * float(weight.abs().max()) + float(bias.norm())
            found.append(length)

    return max(found) if all(map(math.isfinite, found)) else math.inf


def _spectral_norm(weight: torch.Tensor) -> float:
    """By power iteration from a fixed start, so that no random number is drawn."""
    vector = torch.linspace(1, 2, weight.shape[1], device=weight.device).sin()
    for _ in range(_ITERATIONS):
        vector = weight.T @ (weight @ vector)
        norm = float(vector.norm())
        if not norm > 0:  # all zero, or NaN
            return norm
        vector = vector / norm
    return math.sqrt(norm)
