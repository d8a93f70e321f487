"""The last layer of a non-linear network folded into ``to_k`` and ``to_v``, on graphics cards.

``W (x + m (A h + b)) = W x + m (W A) h + m W b``: the residual is the projection's own product,
the multiplier a factor of the second one, and the context itself is never written anew. Of the
four kernels that a projection takes otherwise three are left, and of the first layers of keys and
values, one for both.

On a CPU in fp32 the context is changed instead, as reading and writing it costs little there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..engine.folding import Fold, WeightMark
from ..engine.hidden import HiddenLayers
from ..engine.network import without_autocast
from ..engine.prepared import prepared
from ..engine.products import FUSING
from ..engine.stack import Stack, half_for
from ..engine.tensors import version
from .folded import Active, FoldedProjection, is_foldable
from .projection import Projection

MOST_CHANGES = 3
"""Changes of a weight in one handle after which its product isn't computed again: a LoRA that is
fused, or a model that is moved away and back, changes it once or twice; some do at every step.
"""


@dataclass
class _Ready:
    """Everything for one call, and what it was computed from."""

    mark: WeightMark
    multipliers: tuple[float, ...]
    head: list[Active]
    hidden: HiddenLayers
    product: torch.Tensor
    multiplier: float
    bias: torch.Tensor


class LastLayerProjection(FoldedProjection):
    """A projection with the last layer of a network in it; see the module's description.

    Attributes:
        partner: the projection of the other side.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.partner: LastLayerProjection | None = None
        self._last: _Ready | None = None
        self._changes = 0

    @property
    def mark(self) -> WeightMark | None:
        """The mark of the weight that is folded now."""
        return None if self._last is None else self._last.mark

    def forget(self) -> None:
        """Drop the product; a weight that changes again and again makes none worth its time."""
        self._changes += self._last is not None
        self._hopeless |= self._changes > MOST_CHANGES
        self._last = None

    def uninstall(self) -> None:
        """Leave the module as it was."""
        super().uninstall()
        self._changes, self._hopeless = 0, False

    def outer_if_folded(self, own: Callable[..., Any] | None) -> int:
        """The layer's width, where its product may be part of what is computed here."""
        weight = self.own_weight
        is_here = weight is not None and weight.device.type in FUSING
        return super().outer_if_folded(own) if is_here else 0

    def forward(
        self,
        module: nn.Module,
        own: Callable[..., Any] | None,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
    ) -> Any:
        """Compute the module with the networks in it."""
        may_fold = self.may_fold(module, own, arguments, named)
        if not may_fold or arguments[0].device.type not in FUSING:
            return Projection.forward(self, module, own, arguments, named)

        try:
            weight = self.usable_weight(arguments[0])
            ready = None if weight is None else self._ready_for(weight, arguments[0])
            result = None
            if weight is not None and ready is not None:
                result = self._computed(ready, weight, arguments[0])
        except Exception as error:
            self.seam.fail(error)
            return type(module).forward(module, *arguments)
        if result is None:
            return Projection.forward(self, module, own, arguments, named)

        self.path, self.was_reached = "folded", True
        return result

    def _ready_for(self, weight: torch.Tensor, context: torch.Tensor) -> _Ready | None:
        """What to compute with now, or ``None`` to change the context instead."""
        multipliers = self.seam.per_image[0].multipliers(self.index, self.side)
        ready = self._last
        if ready is not None and not ready.mark.holds(weight):
            self.forget()
            if self._hopeless:
                return None
            ready = None
        if ready is not None and ready.multipliers == multipliers:
            return ready
        if not self.seam.has_width_of(context):
            return None

        try:
            with torch.inference_mode(False), torch.no_grad():
                self._last = self._made(weight, context, multipliers)
        except Exception:  # out of memory, most likely: changing the context takes less
            self._hopeless, self._last = True, None
        return self._last

    def _made(
        self, weight: torch.Tensor, context: torch.Tensor, multipliers: tuple[float, ...]
    ) -> _Ready | None:
        """Fold, or take what was folded before another multiplier came."""
        active = self.seam.per_image[0].stack.active(context.shape[-1], multipliers)
        half = half_for(active, context, self.side)
        if not active or half is not weight.dtype or not is_foldable(weight, context):
            return None

        *head, (network, multiplier) = active
        hidden = network.hidden(context.shape[-1], weight.device, weight.dtype)
        if hidden is None:
            return None
        fold = self._kept_fold(network, weight)
        if fold is None:
            return None

        self.seam.note_fold(weight)
        bias = fold.shift * multiplier
        return _Ready(fold.mark, multipliers, head, hidden, fold.product.t(), multiplier, bias)

    def _kept_fold(self, network: Any, weight: torch.Tensor) -> Fold | None:
        """The product of the projection and the last layer; ``None`` if it takes too much memory.

        The amount is the same whether it is kept or not, so only the job decides.
        """
        last = network.last_layer(weight.shape[1], self.side)
        if not self._afforded:
            needed = weight.shape[0] * last.weight.shape[1] * weight.element_size()
            if self.seam.bytes_left < needed:
                self._hopeless = True
                return None
            self.seam.bytes_left -= needed
            self._afforded = True

        key = (id(weight), self.side, "last layer")
        kept = prepared(network).folds.get(key)
        if kept is None or not kept.is_of(weight, (), None, closely=self._last is None):
            kept = Fold.of(weight, last)
            prepared(network).keep(key, kept)
        return kept

    def _computed(self, ready: _Ready, weight: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        # What does nothing here takes as long as a kernel does to start, hence the questions.
        with without_autocast(context.device.type):
            is_narrow = context.dtype is weight.dtype
            inputs = context if is_narrow else context.to(weight.dtype)  # as autocast would do
            if ready.head:
                inputs = Stack.through(ready.head, inputs, self.side, exact=False)

            rows = inputs.reshape(-1, inputs.shape[-1])
            hidden = self._hidden(ready, context, rows if ready.hidden.is_by_row else inputs)
            if hidden.ndim != 2:
                hidden = hidden.reshape(-1, hidden.shape[-1])

            made = F.linear(rows, weight, ready.bias)
            made.addmm_(hidden, ready.product, alpha=ready.multiplier)
            return made.view(*context.shape[:-1], weight.shape[0])

    def _hidden(self, ready: _Ready, context: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """``h`` of this side; what the first side computes for the other waits in the call."""
        call, counted = self.seam.call, version(context)
        waiting, call.waiting = call.waiting, None
        if waiting is not None and waiting[:3] == (id(self), id(context), counted):
            return ready.hidden.of(inputs, self.side) if waiting[-1] is None else waiting[-1]

        # An inference tensor doesn't tell whether it is changed before the other side comes, and
        # neither does one of a compiled graph.
        is_counted = call.running and not call.is_compiled and not context.is_inference()
        partner = self.partner if is_counted else None
        other = None if partner is None else partner._last
        mine, theirs = None, None
        if other is not None and other.hidden is ready.hidden and not (ready.head or other.head):
            both = ready.hidden.of_both(inputs)
            mine, theirs = both[self.side], both[1 - self.side]

        # The context is kept with it, so that no other tensor can get its identity meanwhile.
        call.waiting = id(partner), id(context), counted, context, theirs
        return ready.hidden.of(inputs, self.side) if mine is None else mine
