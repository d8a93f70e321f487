"""One affine map for several layers: the one that comes nearest to their changes of weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..engine.stack import KEY, VALUE
from ..engine.structure import StateDict

RIDGE = 1e-7
"""Of the mean square of the weights: keeps directions that no layer reads from getting large
weights."""


@dataclass
class Sums:
    """What least squares needs of the layers of one width: per side, ``W^T W`` and ``W^T D``."""

    width: int
    total: float = 0.0
    grams: list[torch.Tensor] = field(init=False)
    products: list[torch.Tensor] = field(init=False)
    gram_of_bias: torch.Tensor = field(init=False)
    product_of_bias: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        square = self.width, self.width
        self.grams = [torch.zeros(square, dtype=torch.float64) for _ in (KEY, VALUE)]
        self.products = [torch.zeros(square, dtype=torch.float64) for _ in (KEY, VALUE)]
        self.gram_of_bias = torch.zeros(square, dtype=torch.float64)
        self.product_of_bias = torch.zeros(self.width, dtype=torch.float64)

    def add(self, side: int, weight: torch.Tensor, change: torch.Tensor) -> None:
        """One layer's projection."""
        precise, wanted = weight.double(), change.double()
        self.grams[side] += precise.T @ precise
        self.products[side] += precise.T @ wanted
        self.total += float(wanted.square().sum())

    def add_bias(self, matrix: torch.Tensor, change: torch.Tensor) -> None:
        """A bias that is ``matrix @ b``."""
        precise, wanted = matrix.double(), change.double()
        self.gram_of_bias += precise.T @ precise
        self.product_of_bias += precise.T @ wanted
        self.total += float(wanted.square().sum())

    def solved(self) -> tuple[list[StateDict], float]:
        """The linear layers of both sides, and the squares that they don't explain."""
        layers, left = list[StateDict](), self.total
        for side in (KEY, VALUE):
            found, explained = _least(self.grams[side], self.products[side])
            # a LoRA can't tell of the key's bias, which has no effect
            bias = torch.zeros(self.width)
            left -= explained
            if side == VALUE:
                shift, explained = _least(self.gram_of_bias, self.product_of_bias[:, None])
                bias, left = shift[:, 0].float(), left - explained
            layers.append({"linear.0.weight": found.float(), "linear.0.bias": bias})
        return layers, max(left, 0.0)


def _least(gram: torch.Tensor, product: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The solution, and the squares that it explains."""
    mean = float(gram.diagonal().mean())
    if not mean:
        return torch.zeros_like(product), 0.0
    ridge = RIDGE * mean * torch.eye(len(gram), dtype=gram.dtype)
    found: torch.Tensor = torch.linalg.solve(gram + ridge, product)
    # not by looking at all layers again: |WA - D|^2 = |D|^2 - (2 A.P - A.GA)
    return found, float((2 * found * product).sum() - (found * (gram @ found)).sum())
