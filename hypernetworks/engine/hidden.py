"""The layers of a non-linear network before its last one, for keys and values together.

The last layer of an MLP is linear unless an activation or a norm follows it. Then what it adds to
a projection can be folded, as a linear network can: ``W (x + m (A h + b)) = W x + m (W A) h + m W
b``. What remains is ``h``, whose first layer is one product for keys and values, since both read
the same context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .affine import AffineMap
from .products import FUSED, linear
from .structure import Structure, build_activation
from .tensors import bytes_of


def ends_in_layer(structure: Structure) -> bool:
    """Whether every MLP is some hidden layers and a linear one, with nothing after it."""
    return (
        not structure.is_linear
        and not structure.layer_norm
        and not structure.activate_output
        and len(structure.layer_structure) > 2
        # Keys and values have an activation in common, which one with parameters is not.
        and not list(build_activation(structure.activation).parameters())
    )


def last_layer(mlp: nn.Sequential) -> AffineMap:
    """The last linear layer, as it is in the file: ``(dim, hidden)`` and ``(dim,)``."""
    layer = [module for module in mlp if isinstance(module, nn.Linear)][-1]
    return AffineMap(layer.weight.detach(), layer.bias.detach())


@dataclass(frozen=True)
class _Layer:
    """A linear layer and the activation that follows it."""

    weight: torch.Tensor
    bias: torch.Tensor
    activation: nn.Module

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """``(…, inner)`` -> ``(…, outer)``; only the last dimension of the inputs must be dense."""
        is_fused = type(self.activation) in FUSED
        rows = inputs if inputs.ndim == 2 else inputs.reshape(-1, inputs.shape[-1])
        made = linear(rows, self.weight, self.bias, self.activation if is_fused else None)
        if inputs.ndim != 2:
            made = made.view(*inputs.shape[:-1], self.weight.shape[0])

        # Some look at the batch, so they need the shape that they were trained with.
        result: torch.Tensor = made if is_fused else self.activation(made)
        return result


class HiddenLayers:
    """The hidden layers of one width, prepared for a device and dtype.

    Args:
        pair: the MLPs for keys and values, of a structure for which :func:`ends_in_layer` is true.
        device, dtype: where and in what they compute.

    Attributes:
        is_by_row: whether rows without a batch, ``(rows, dim)``, give the same.
    """

    def __init__(
        self, pair: Sequence[nn.Sequential], device: torch.device, dtype: torch.dtype
    ) -> None:
        keys, values = ([_of(*parts, device, dtype) for parts in _parts(mlp)] for mlp in pair)
        first, other = keys[0], values[0]
        self._both = _Layer(
            torch.cat([first.weight, other.weight]),
            torch.cat([first.bias, other.bias]),
            first.activation,
        )

        # Views: each side alone needs no memory of its own.
        weights, biases = self._both.weight.chunk(2), self._both.bias.chunk(2)
        self._alone = [_Layer(w, b, first.activation) for w, b in zip(weights, biases, strict=True)]
        self._further = (keys[1:], values[1:])
        self.is_by_row = type(first.activation) in FUSED

    def of(self, context: torch.Tensor, side: int) -> torch.Tensor:
        """``h`` of one side: ``(…, dim)`` -> ``(…, hidden)``."""
        return self._followed(self._alone[side](context), side)

    def of_both(self, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``h`` for keys and for values, the first layers as one product."""
        key, value = self._both(context).chunk(2, dim=-1)
        return self._followed(key, 0), self._followed(value, 1)

    def of_both_stacked(self, context: torch.Tensor) -> torch.Tensor:
        """``h`` of both: ``(batch, tokens, dim)`` -> ``(2, batch * tokens, hidden)``."""
        if self._further[0]:
            return torch.stack(self.of_both(context)).flatten(1, 2)
        # Without a copy: a batched product reads rows that lie apart.
        made = self._both(context)
        return made.view(-1, 2, made.shape[-1] // 2).transpose(0, 1)

    def _followed(self, hidden: torch.Tensor, side: int) -> torch.Tensor:
        for layer in self._further[side]:
            hidden = layer(hidden)
        return hidden

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Everything that is kept."""
        layers = [self._both, *self._further[0], *self._further[1]]
        return [tensor for layer in layers for tensor in (layer.weight, layer.bias)]


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
        return bytes_of(self.weight, self.bias)

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


def _parts(mlp: nn.Sequential) -> list[tuple[nn.Linear, nn.Module]]:
    """Each hidden layer with its activation; dropout is off."""
    modules = [module for module in mlp if not isinstance(module, nn.Dropout)][:-1]
    return list(zip(modules[::2], modules[1::2], strict=True))  # type: ignore[arg-type]


def _of(
    layer: nn.Linear, activation: nn.Module, device: torch.device, dtype: torch.dtype
) -> _Layer:
    weight, bias = (p.detach().to(device, dtype) for p in (layer.weight, layer.bias))
    return _Layer(weight, bias, activation.eval())
