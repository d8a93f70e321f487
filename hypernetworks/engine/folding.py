"""Linear networks folded into a projection: ``W (x + m (A x + b)) = (W + m W A) x + m W b``.

The projection's own weight is never written to. What is kept beside it is ``W A`` and ``W b``, so that another
multiplier costs one pass over the weight and no product.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .affine import AffineMap
from .products import linear

_SAMPLE = 16
FOLDABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Weights of other types are packed or scaled: what they stand for is their own module's business."""


class WeightMark:
    """Tells cheaply whether a weight is still what it was when something was computed from it.

    Replaced weights and moved ones are told by their identity and address, changes in place by torch's version counter.
    Writing through ``.data`` escapes the counter, and weights made in inference mode have none: therefore a few numbers
    are compared as well, at each use on a CPU, where it costs microseconds and nothing has to be waited for.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weakref.ref(weight)
        self._address, self._version = weight.data_ptr(), _version(weight)
        self._on_cpu = weight.device.type == "cpu"
        self._stride = max(1, weight.numel() // _SAMPLE)
        self._sample = self._drawn(weight).clone()

    def holds(self, weight: torch.Tensor, *, closely: bool = False) -> bool:
        """Whether ``weight`` is the same with the same content.

        Args:
            closely: compare the few numbers on other devices than the CPU, too, which waits for the device.
        """
        return (
            self._weight() is weight
            and weight.data_ptr() == self._address
            and _version(weight) == self._version
            and (not (closely or self._on_cpu) or torch.equal(self._drawn(weight), self._sample))
        )

    @staticmethod
    def key(weight: torch.Tensor) -> tuple[int, int | None]:
        """What tells two states of one weight apart, without keeping anything."""
        return weight.data_ptr(), _version(weight)

    @property
    def is_dead(self) -> bool:
        """Whether the weight is gone."""
        return self._weight() is None

    def _drawn(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.detach().view(-1)[:: self._stride]


def _version(weight: torch.Tensor) -> int | None:
    return None if weight.is_inference() else weight._version


@dataclass(frozen=True, eq=False)
class Fold:
    """What a linear network, or several, adds to one projection, at multiplier 1.

    Attributes:
        mark: the projection's weight at the time.
        product: ``W A``, ``(outer, dim)``, in the weight's dtype and on its device.
        shift: ``W b``, ``(outer,)``, the same.
        multipliers: of the networks, where there are several: then ``A`` holds them already. ``None`` for one.
        others: the networks after the first, weakly.
    """

    mark: WeightMark
    product: torch.Tensor
    shift: torch.Tensor
    multipliers: tuple[float, ...] | None = None
    others: tuple[weakref.ref[object], ...] = ()

    @classmethod
    def of(
        cls,
        weight: torch.Tensor,
        affine: AffineMap,
        multipliers: tuple[float, ...] | None = None,
        others: Sequence[object] = (),
    ) -> Fold:
        """Multiply, in fp32 at least; rounded once, to the weight's dtype.

        Args:
            weight: ``(outer, dim)``, of one of the types in :data:`FOLDABLE`.
            affine: of width ``dim``, in any dtype, on any device.
        """
        precise = torch.promote_types(weight.dtype, torch.float32)
        outer = weight.detach().to(precise)
        product = linear(outer, affine.weight.to(weight.device, precise).T.contiguous(), None)
        shift = outer @ affine.bias.to(weight.device, precise)
        refs = tuple(weakref.ref(other) for other in others)
        return cls(
            WeightMark(weight), product.to(weight.dtype), shift.to(weight.dtype), multipliers, refs
        )

    def is_of(
        self,
        weight: torch.Tensor,
        others: Sequence[object],
        multipliers: tuple[float, ...] | None,
        *,
        closely: bool = False,
    ) -> bool:
        """Whether it is what :meth:`of` would give now. ``closely`` as in :meth:`WeightMark.holds`."""
        return (
            self.multipliers == multipliers
            and len(self.others) == len(others)
            and all(ref() is other for ref, other in zip(self.others, others, strict=True))
            and self.mark.holds(weight, closely=closely)
        )

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.product, self.shift))

    def added_to(
        self, weight: torch.Tensor, multiplier: float, into: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``(W + m W A, m W b)``: weight and bias of the projection with the networks in it.

        Args:
            weight: the projection's own; not changed.
            multiplier: 1 where :attr:`multipliers` are part of the product.
            into: a tensor to write the new weight to, from an earlier call.
        """
        if (
            into is None
            or into.shape != weight.shape
            or into.dtype != weight.dtype
            or into.device != weight.device
        ):
            into = torch.empty_like(
                weight, requires_grad=False, memory_format=torch.contiguous_format
            )
        torch.add(weight.detach(), self.product, alpha=multiplier, out=into)
        return into, self.shift * multiplier
