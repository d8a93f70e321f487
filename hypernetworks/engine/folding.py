"""Linear networks folded into a projection: ``W (x + m (A x + b)) = (W + m W A) x + m W b``.

The projection's own weight is never written to. What is kept beside it is ``W A`` and ``W b``, so
that another multiplier costs one pass over the weight and no product.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .affine import AffineMap
from .products import linear
from .tensors import address, is_on_cpu, version

FOLDABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Weights of other types are packed or scaled: what they stand for is their own module's business.
"""


class WeightMark:
    """Tells cheaply whether a weight is still what it was when something was computed from it.

    Replaced weights and moved ones are told by their identity and address, changes in place by
    torch's version counter. Writing through ``.data`` escapes the counter, and weights made in
    inference mode have none: therefore one number of each row is compared as well, each in another
    column. On a CPU that is done at each use, where it costs microseconds and nothing has to be
    waited for; on other devices the handle asks for all weights at once, and reads the answer at
    its next call.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weakref.ref(weight)
        self._address, self._version = address(weight), version(weight)
        self._on_cpu = is_on_cpu(weight)
        self.sample = self._drawn(weight).clone()

    def holds(self, weight: torch.Tensor, *, closely: bool = False) -> bool:
        """Whether ``weight`` is the same with the same content.

        Args:
            closely: compare the numbers on other devices than the CPU, too, which waits for the
                device.
        """
        return (
            self._weight() is weight
            and address(weight) == self._address
            and version(weight) == self._version
            and (not (closely or self._on_cpu) or torch.equal(self._drawn(weight), self.sample))
        )

    def drawn_again(self) -> torch.Tensor | None:
        """The numbers to compare with :attr:`sample`; ``None`` on a CPU, and where :meth:`holds`
        sees a change.
        """
        weight = self._weight()
        if self._on_cpu or weight is None or not self.holds(weight):
            return None
        return self._drawn(weight)

    @staticmethod
    def key(weight: torch.Tensor) -> tuple[int, int | None]:
        """What tells two states of one weight apart, without keeping anything."""
        return address(weight), version(weight)

    @property
    def is_dead(self) -> bool:
        """Whether the weight is gone."""
        return self._weight() is None

    @staticmethod
    def _drawn(weight: torch.Tensor) -> torch.Tensor:
        """A number of each row, along the diagonal and around: each row and each column has its
        own.
        """
        return weight.detach().view(-1)[:: weight.shape[-1] + 1]


@dataclass(frozen=True, eq=False)
class Fold:
    """What a linear network, or several, adds to one projection, at multiplier 1.

    Attributes:
        mark: the projection's weight at the time.
        product: ``W A``, ``(outer, dim)``, in the weight's dtype and on its device.
        shift: ``W b``, ``(outer,)``, the same.
        baked: the multipliers that ``A`` holds already, where it is that of several networks;
            ``None`` for one network, whose multiplier is applied by :meth:`added_to`.
        others: the networks after the first, weakly.
    """

    mark: WeightMark
    product: torch.Tensor
    shift: torch.Tensor
    baked: tuple[float, ...] | None = None
    others: tuple[weakref.ref[object], ...] = ()

    @classmethod
    def of(
        cls,
        weight: torch.Tensor,
        affine: AffineMap,
        baked: tuple[float, ...] | None = None,
        others: Sequence[object] = (),
    ) -> Fold:
        """Multiply, in fp32 at least; rounded once, to the weight's dtype.

        Args:
            weight: ``(outer, dim)``, of one of the types in :data:`FOLDABLE`.
            affine: of width ``dim``, in any dtype, on any device.
            baked, others: see the attributes.
        """
        precise = torch.promote_types(weight.dtype, torch.float32)
        outer = weight.detach().to(precise)
        product = linear(outer, affine.weight.to(weight.device, precise).T.contiguous(), None)
        shift = outer @ affine.bias.to(weight.device, precise)
        refs = tuple(weakref.ref(other) for other in others)

        return cls(
            WeightMark(weight), product.to(weight.dtype), shift.to(weight.dtype), baked, refs
        )

    def is_of(
        self,
        weight: torch.Tensor,
        others: Sequence[object],
        baked: tuple[float, ...] | None,
        *,
        closely: bool = False,
    ) -> bool:
        """Whether it is what :meth:`of` would give now.

        ``closely`` as in :meth:`WeightMark.holds`.
        """
        return (
            self.baked == baked
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
            multiplier: of the one network; ignored where the multipliers are :attr:`baked` in.
            into: a tensor to write the new weight to, from an earlier call.
        """
        multiplier = 1.0 if self.baked is not None else multiplier
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
