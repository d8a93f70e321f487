"""Linear networks folded into a projection: ``W (x + m (A x + b)) = (W + m W A) x + m W b``.

The projection's own weight is never written to. ``W A`` and ``W b`` are kept beside it, so that
another multiplier costs one pass over the weight and no matrix product.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .affine import AffineMap
from .products import linear
from .tensors import address, bytes_of, is_on_cpu, version

FOLDABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Types of weights that can be folded. Others are packed or scaled, and only their own module can
decode them.
"""


class WeightMark:
    """Detects cheaply whether a weight has changed since something was computed from it.

    Another or a moved weight has another identity or address, and torch's version counter counts
    changes in place. Writing through ``.data`` isn't counted, and weights made in inference mode
    have no counter. Therefore one number of each row is compared too, each from another column. On
    a CPU, this is done at each use and takes microseconds. On other devices, reading would wait for
    the device, so the handle compares all weights at once, and reads the result when the device has
    it: at once where it had nothing to do, else at the next call.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weakref.ref(weight)
        self._address, self._version = address(weight), version(weight)
        self._on_cpu = is_on_cpu(weight)
        # One number of each row, along the diagonal, starting again at the first column: a change
        # of any whole row or column shows in it.
        step = weight.shape[-1] + 1
        self._size, self._stride = (-(-weight.numel() // step),), (step,)
        self.sample = self._drawn(weight).clone()

    def holds(self, weight: torch.Tensor, *, closely: bool = False) -> bool:
        """Whether ``weight`` is the same with the same content.

        Args:
            closely: compare the numbers on accelerators too, which waits for the device.
        """
        return (
            self._weight() is weight
            and address(weight) == self._address
            and version(weight) == self._version
            and (not (closely or self._on_cpu) or torch.equal(self._drawn(weight), self.sample))
        )

    def drawn_again(self) -> torch.Tensor | None:
        """The numbers to compare with :attr:`sample`.

        ``None`` on a CPU, and if :meth:`holds` detects a change already.
        """
        weight = self._weight()
        if self._on_cpu or weight is None or not self.holds(weight):
            return None
        return self._drawn(weight)

    @staticmethod
    def key(weight: torch.Tensor) -> tuple[int, int | None]:
        """Identifies a state of a weight, without keeping the weight alive."""
        return address(weight), version(weight)

    @property
    def is_dead(self) -> bool:
        """Whether the weight is gone."""
        return self._weight() is None

    def _drawn(self, weight: torch.Tensor) -> torch.Tensor:
        """The numbers that are compared: a view, so drawing copies nothing."""
        # Asked for in one step, as a handle does this for many weights on an accelerator.
        weight = weight.detach() if weight.requires_grad else weight
        return weight.as_strided(self._size, self._stride)


@dataclass(frozen=True, eq=False)
class Fold:
    """What one or several linear networks add to a projection, at multiplier 1.

    Attributes:
        mark: the state of the projection's weight from which it was computed.
        product: ``W A``, ``(outer, dim)``, in the weight's dtype and on its device.
        shift: ``W b``, ``(outer,)``, the same.
        baked: for several networks, the multipliers that ``A`` includes; ``None`` for one network,
            whose multiplier is applied by :meth:`added_to`.
        others: weak references to the networks after the first.
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
        """Multiply in fp32 at least, and round once, to the weight's dtype.

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
        """Whether :meth:`of` would return the same; ``closely`` as in :meth:`WeightMark.holds`."""
        return (
            self.baked == baked
            and len(self.others) == len(others)
            and all(ref() is other for ref, other in zip(self.others, others, strict=True))
            and self.mark.holds(weight, closely=closely)
        )

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return bytes_of(self.product, self.shift)

    def added_to(
        self, weight: torch.Tensor, multiplier: float, into: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``(W + m W A, m W b)``: weight and bias of the projection with the networks in it.

        Args:
            weight: the projection's own; not changed.
            multiplier: of the one network; ignored if the multipliers are :attr:`baked` in.
            into: the weight from an earlier call, whose memory is used again.
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
