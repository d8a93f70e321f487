"""Linear networks folded into the weights of ``to_k`` and ``to_v``: no product is added.

The module keeps its weight. While the networks are active, a replacement of its forward method
multiplies by another one. Extensions that copy or rewrite the weight work as before, and the next
call notices their changes. If folding isn't possible, or isn't faster, the context is changed
instead.

The results of both are equal up to rounding, but not bit for bit. Therefore the choice depends only
on the job, never on earlier ones: the same job always gives the same image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..engine.folding import FOLDABLE, Fold, WeightMark
from ..engine.network import Hypernetwork
from ..engine.prepared import prepared
from ..engine.stack import Stack, as_one_map, split_tail
from ..engine.tensors import bytes_of, is_on_cpu, is_ordinary
from .projection import Projection
from .seam import is_plain_linear, nothing

Active = tuple[Hypernetwork, float]

_REFOLD_ROWS = {"cpu": 64}
_REFOLD_ROWS_ELSEWHERE = 256
"""From this many rows on, a pass over the weight is faster than the affine map of the context."""

_USUAL_STEPS = 20
"""Of a generation, where nobody has said how many there will be."""
_PRECISE_TIMES = 8
"""How many times as long as a product in half precision an accelerator takes for one in fp32:
three (GeForce) to thirteen (H200).
"""


@dataclass
class _Ready:
    """A weight that includes networks, and what it was computed from."""

    mark: WeightMark
    multipliers: tuple[float, ...]
    head: list[Active]
    weight: torch.Tensor
    bias: torch.Tensor


class FoldedProjection(Projection):
    """A projection with another weight; see the module's description."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._ready: _Ready | None = None
        self._fold: Fold | None = None
        self._seen: tuple[int, int | None] | None = None
        self._afforded = self._hopeless = False
        self._keeps_product = False

    @property
    def own_weight(self) -> torch.Tensor | None:
        """The module's parameter, asking nothing of the module; ``None`` where it has none."""
        parameters: dict[str, torch.Tensor | None] = vars(self.module).get("_parameters", {})
        return parameters.get("weight")

    @property
    def nbytes(self) -> int:
        """Bytes of the weight, if networks may be folded into it; else 0."""
        weight = self.own_weight
        if weight is None or not is_ordinary(weight) or weight.dtype not in FOLDABLE:
            return 0
        return bytes_of(weight) if weight.shape[-1] in self.seam.widths else 0

    @property
    def mark(self) -> WeightMark | None:
        """The mark of the weight that is folded now."""
        return None if self._ready is None else self._ready.mark

    def forget(self) -> None:
        """Drop what was computed from the weight, which has changed."""
        self._ready = self._fold = None

    def uninstall(self) -> None:
        """Leave the module as it was."""
        super().uninstall()
        self.forget()
        self._seen = None

    def outer_if_folded(self, own: Callable[..., Any] | None) -> int:
        """The layer's width, where it is torch's own and nothing else happens in it."""
        is_plain = own is None and is_plain_linear(self.module) and self.seam.prepare is nothing
        return self.module.out_features if is_plain else 0  # type: ignore[return-value]

    def forward(
        self,
        module: nn.Module,
        own: Callable[..., Any] | None,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
    ) -> Any:
        """Compute the module with the networks in its weight."""
        may_fold = self.may_fold(module, own, arguments, named)
        ready = self._made_ready(arguments[0]) if may_fold else None
        if ready is None:
            return super().forward(module, own, arguments, named)

        self.path, self.was_reached = "folded", True
        try:
            changed = Stack.through(ready.head, arguments[0], self.side, exact=False)
        except Exception as error:
            self.seam.fail(error)
            return type(module).forward(module, *arguments)
        return F.linear(changed, ready.weight, ready.bias)

    def may_fold(
        self,
        module: nn.Module,
        own: Callable[..., Any] | None,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
    ) -> bool:
        """Whether this is the plain call that a folded weight can stand for."""
        is_plain = own is None and len(arguments) == 1 and not named and module is self.module
        return is_plain and not self._hopeless and isinstance(arguments[0], torch.Tensor)

    def usable_weight(self, context: torch.Tensor) -> torch.Tensor | None:
        """The module's weight, if multiplying by it is all that the module does now."""
        try:
            if not self.seam.is_dense(self.module):
                return None
            self.seam.prepare(self.module)
        except Exception:  # if it is the host's own error, the module's forward raises it again
            return None

        # A weight that is computed at each access is not among the parameters; a bias may have been
        # added since the last call, as some LoRAs do.
        parameters = vars(self.module)["_parameters"]
        weight = parameters.get("weight")
        has_bias = parameters.get("bias") is not None or "bias" in vars(self.module)
        if (weight is None or has_bias) or (
            torch.is_grad_enabled() and (weight.requires_grad or context.requires_grad)
        ):
            return None
        return weight  # type: ignore[no-any-return]

    def _made_ready(self, context: torch.Tensor) -> _Ready | None:
        """The weight to use now, or ``None`` to change the context instead."""
        weight = self.usable_weight(context)
        if weight is None:
            return None

        multipliers = self.seam.per_image[0].multipliers(self.index, self.side)
        ready = self._ready
        if ready is not None and ready.multipliers == multipliers and ready.mark.holds(weight):
            return ready
        if not self.seam.has_width_of(context):
            return None

        try:
            with torch.inference_mode(False), torch.no_grad():
                return self._refolded(weight, context, multipliers)
        except Exception:  # out of memory, most likely: changing the context takes less
            self._hopeless, self._ready, self._fold = True, None, None
            return None

    def _refolded(
        self, weight: torch.Tensor, context: torch.Tensor, multipliers: tuple[float, ...]
    ) -> _Ready | None:
        """Fold, with a kept product if there is one; ``None`` if that is impossible or slower."""
        image, dim = self.seam.per_image[0], context.shape[-1]
        if not is_foldable(weight, context):
            return None

        head, tail = split_tail(image.stack.active(dim, multipliers))
        # A LoRA that rewrites the weight at each step would make each fold useless.
        seen, self._seen = self._seen, WeightMark.key(weight)
        restless = seen is not None and seen != self._seen
        if not tail:
            return None
        rows, scheduled = context.numel() // dim, not image.is_constant
        if not self._pays(rows, weight, len(tail), restless, scheduled):
            return None
        if not self._afforded:
            steps = 1 if scheduled else image.steps or _USUAL_STEPS
            # Several networks with schedules need another product at each step, kept or not.
            is_anew = scheduled and len(tail) > 1
            if not self._afford(
                weight, is_anew or self._pays_anew(rows * len(tail) * steps, weight)
            ):
                return None

        fold = self._product(weight, tail)
        into = self._ready.weight if self._ready is not None else None

        # An interrupt in the middle of writing would leave a mixture of the old and the new weight.
        self._ready = None
        made = fold.added_to(weight, tail[0][1], into)
        self.seam.note_fold(weight)
        self._ready = _Ready(fold.mark, multipliers, head, *made)
        return self._ready

    @staticmethod
    def _pays(
        rows: int, weight: torch.Tensor, networks: int, restless: bool, scheduled: bool
    ) -> bool:
        """Whether folding is faster than affine maps, if it must be repeated at each step.

        Args:
            restless: whether the weight has just changed, and may change at every step.
            scheduled: whether the multipliers change at every step.
        """
        if (restless or (scheduled and networks > 1)) and rows * networks < weight.shape[0]:
            return False  # a product of the weight with the map
        if restless or scheduled:
            # A pass over the weight at each step has to cost less than the map on so many rows.
            return rows >= _REFOLD_ROWS.get(weight.device.type, _REFOLD_ROWS_ELSEWHERE)

        return True

    @staticmethod
    def _pays_anew(rows: int, weight: torch.Tensor) -> bool:
        """Whether a product of the weight with the map is faster than affine maps of so many rows,
        of which half would be spared if the product were kept.

        It is computed in fp32, and the maps, on accelerators, in half precision.
        """
        is_half = not is_on_cpu(weight) and weight.element_size() == 2
        return rows >= 2 * weight.shape[0] * (_PRECISE_TIMES if is_half else 1)

    def _product(self, weight: torch.Tensor, tail: list[Active]) -> Fold:
        """The product of the networks and the weight: the current, a kept, or a new one."""
        network, others = tail[0][0], [network for network, _ in tail[1:]]
        baked = tuple(m for _, m in tail) if others else None
        if self._fold is not None and self._fold.is_of(weight, others, baked):
            return self._fold

        key = (id(weight), self.side, bool(others))  # alone, and with those that came after it last
        kept = prepared(network).folds.get(key)
        if kept is None or not kept.is_of(weight, others, baked, closely=True):
            precise = torch.promote_types(weight.dtype, torch.float32)
            affine = as_one_map(tail, weight.shape[1], self.side, weight.device, precise)
            kept = Fold.of(weight, affine, baked, others)
            if self._keeps_product:
                prepared(network).keep(key, kept)

        if self._keeps_product:
            self._fold = kept
        else:  # an earlier job, of fewer steps, may have kept it
            prepared(network).folds.pop(key, None)
        return kept

    def _afford(self, weight: torch.Tensor, pays_anew: bool) -> bool:
        """Take the memory for the sum, and for the product if it is kept, from the handle's limit.

        The amount is the same whether there is a product already or not, so only the job decides.

        Args:
            pays_anew: whether a product that isn't kept, and is needed again in the next
                generation, takes less time in this one than changing the context.
        """
        size, seam = bytes_of(weight), self.seam
        self._keeps_product = not pays_anew or seam.bytes_for_products >= size
        needed = 2 * size if self._keeps_product else size
        if seam.bytes_left < needed:
            self._hopeless = True
            return False

        seam.bytes_left -= needed
        seam.bytes_for_products -= needed - size
        self._afforded = True
        return True


def is_foldable(weight: torch.Tensor, context: torch.Tensor) -> bool:
    """Whether a weight is a plain matrix for this context, on its device."""
    return (
        is_ordinary(weight, context)
        and weight.dtype in FOLDABLE
        and weight.ndim == 2
        and weight.shape[1] == context.shape[-1]
        and weight.is_contiguous()
        and weight.device == context.device  # an offloaded one is elsewhere
    )


__all__ = ["Active", "FoldedProjection", "is_foldable"]
