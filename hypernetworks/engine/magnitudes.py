"""How large numbers can get inside an MLP: fp16, which ends at 65,504, may overflow."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

LARGEST_CONTEXT = 8.0
"""Largest number per channel that is assumed of a context.

Contexts of self-attention come from a layer norm, so a row's norm is about ``sqrt(dim)`` times its
weights.
"""
_ITERATIONS = 12
_MARGIN = 1.5  # power iteration approaches the norm from below


def largest_output(modules: Iterable[nn.Module], dim: int) -> float:
    """An upper estimate of the largest number in an MLP, for contexts ``(…, dim)``.

    It multiplies the spectral norms of the layers. Activations count as the identity, because none
    of them makes numbers much larger.
    """
    # The norm of a row, and after each layer an upper estimate of it.
    length = LARGEST_CONTEXT * math.sqrt(dim)
    found = [length]
    for module in modules:
        if isinstance(module, nn.Linear):
            weight, bias = module.weight.detach().float(), module.bias.detach().float()
            found.append(float((weight.norm(dim=1) * length + bias.abs()).max()))
            # The largest number of a row can be smaller than its norm, which the next layer sees.
            length = _MARGIN * _spectral_norm(weight) * length + float(bias.norm())
        elif isinstance(module, nn.LayerNorm):
            weight, bias = module.weight.detach().float(), module.bias.detach().float()
            length = math.sqrt(len(weight)) * float(weight.abs().max()) + float(bias.norm())
            found.append(length)

    return max(found) if all(map(math.isfinite, found)) else math.inf


def _spectral_norm(weight: torch.Tensor) -> float:
    """The spectral norm, by power iteration from a fixed start: no random number is drawn."""
    vector = torch.linspace(1, 2, weight.shape[1], device=weight.device).sin()
    for _ in range(_ITERATIONS):
        vector = weight.T @ (weight @ vector)
        norm = float(vector.norm())
        if not norm > 0:  # all zero, or NaN
            return norm
        vector = vector / norm
    return math.sqrt(norm)
