"""Linear networks inside the weight of ``to_k`` and ``to_v``: the same product as without a network, and no other.

The module keeps its weight; what stands in for its forward, as long as the networks act, multiplies by another one.
Extensions that keep a copy of the weight, or rewrite it, go on as if nothing were there, and whatever they change is
seen at the next call. Where folding can't be had, or doesn't pay, the context is changed instead.

The two agree to rounding, but not to the bit. So which one serves depends on the job alone, never on what was done
before it: the same job twice gives the same picture twice.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..engine.folding import FOLDABLE, Fold, WeightMark
from ..engine.network import Hypernetwork
from ..engine.stack import Stack, as_one_map, split_tail
from .projection import Projection

Active = tuple[Hypernetwork, float]

_REFOLD_ROWS = {"cpu": 64}
_REFOLD_ROWS_ELSEWHERE = 256
"""From so many rows on, a pass over the weight is cheaper than the affine map of the context."""


@dataclass
class _Ready:
    """A weight with networks in it, and for what it holds."""

    mark: WeightMark
    multipliers: tuple[float, ...]
    head: list[Active]
    weight: torch.Tensor
    bias: torch.Tensor


class FoldedProjection(Projection):
    """A projection whose forward is stood in for; see the module's description."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._ready: _Ready | None = None
        self._fold: Fold | None = None
        self._seen: tuple[int, int | None] | None = None
        self._afforded = False
        self._hopeless = False
        self._stand_in: _StandIn | None = None

    def install(self) -> None:
        """Act on the module; by a hook where its forward is stood in for already."""
        if "forward" in vars(self.module):
            super().install()
        else:
            self._stand_in = vars(self.module)["forward"] = _StandIn(self)

    def uninstall(self) -> None:
        """Leave it as it was. Where others have wrapped the stand-in meanwhile, it goes on as the module's own."""
        super().uninstall()
        if self._stand_in is not None:
            self._stand_in.projection = None
            if vars(self.module).get("forward") is self._stand_in:
                del vars(self.module)["forward"]
            self._stand_in = None
        self._ready = self._fold = self._seen = None

    def forward(self, context: torch.Tensor, *others: Any, **named: Any) -> Any:
        """What the module does, with the networks in it."""
        ready = None if others or named or self._hopeless else self._made_ready(context)
        if ready is None:
            return type(self.module).forward(self.module, self.changed(context), *others, **named)
        self.path = "folded"
        try:
            changed = Stack.through(ready.head, context, self.side, exact=False)
        except Exception as error:
            self.seam.fail(error)
            return type(self.module).forward(self.module, context)
        return F.linear(changed, ready.weight, ready.bias)

    def _made_ready(self, context: torch.Tensor) -> _Ready | None:
        """The weight to use now, or ``None`` to change the context instead."""
        try:
            if not self.seam.is_dense(self.module):
                return None
        except Exception:  # if it is the host's own, the module's forward will raise it
            return None
        weight = vars(self.module)["_parameters"].get(
            "weight"
        )  # a weight that is computed anew is not among them
        if weight is None or (
            torch.is_grad_enabled() and (weight.requires_grad or context.requires_grad)
        ):
            return None
        multipliers = self.seam.parts[0].multipliers(self.index, self.side)
        ready = self._ready
        if ready is not None and ready.multipliers == multipliers and ready.mark.holds(weight):
            return ready
        try:
            with torch.inference_mode(False), torch.no_grad():
                return self._refolded(weight, context, multipliers)
        except Exception:  # out of memory, most likely: changing the context takes less
            self._hopeless, self._ready, self._fold = True, None, None
            return None

    def _refolded(
        self, weight: torch.Tensor, context: torch.Tensor, multipliers: tuple[float, ...]
    ) -> _Ready | None:
        """Fold anew, or from what is kept; ``None`` where that can't be or doesn't pay."""
        part, dim = self.seam.parts[0], context.shape[-1]
        head, tail = split_tail(part.stack.active(dim, multipliers))
        seen, self._seen = self._seen, WeightMark.key(weight)
        restless = seen is not None and seen != self._seen
        if not tail or not _is_foldable(self.module, weight, context):
            return None
        if not self._pays(
            context.numel() // dim, weight, len(tail), restless, not part.is_constant
        ):
            return None
        if not self._afforded and not self._afford(weight):
            return None
        fold = self._product(weight, tail)
        into = self._ready.weight if self._ready is not None else None
        self._ready = (
            None  # an interrupt in the middle of writing leaves neither the old nor the new
        )
        made = fold.added_to(weight, tail[0][1] if fold.multipliers is None else 1.0, into)
        self._ready = _Ready(fold.mark, multipliers, head, *made)
        return self._ready

    @staticmethod
    def _pays(
        rows: int, weight: torch.Tensor, networks: int, restless: bool, scheduled: bool
    ) -> bool:
        """Whether folding is cheaper than the affine maps, for what has to be done again at each step.

        Args:
            restless: the weight has just changed, and may well do so at every step.
            scheduled: the multipliers do.
        """
        if (restless or (scheduled and networks > 1)) and rows * networks < weight.shape[0]:
            return False  # a product of the weight with the map
        if restless or scheduled:
            return rows >= _REFOLD_ROWS.get(
                weight.device.type, _REFOLD_ROWS_ELSEWHERE
            )  # a pass over the weight
        return True

    def _product(self, weight: torch.Tensor, tail: list[Active]) -> Fold:
        """The tail's product with the weight: the one at hand, the one kept with the network, or a new one."""
        network, others = tail[0][0], [network for network, _ in tail[1:]]
        multipliers = tuple(m for _, m in tail) if others else None
        if self._fold is not None and self._fold.is_of(weight, others, multipliers):
            return self._fold
        key = (id(weight), self.side, bool(others))  # alone, and with those that came after it last
        kept = network.folds.get(key)
        if kept is None or not kept.is_of(weight, others, multipliers, closely=True):
            precise = torch.promote_types(weight.dtype, torch.float32)
            affine = as_one_map(tail, weight.shape[1], self.side, weight.device, precise)
            kept = Fold.of(weight, affine, multipliers, others)
            _keep(network, key, kept)
        self._fold = kept
        return kept

    def _afford(self, weight: torch.Tensor) -> bool:
        """Take what the product and the sum need from the handle's limit: the same whether one is kept or not."""
        needed = 2 * weight.numel() * weight.element_size()
        if self.seam.bytes_left < needed:
            self._hopeless = True
            return False
        self.seam.bytes_left -= needed
        self._afforded = True
        return True


class _StandIn:
    """The ``forward`` of a module on which networks act. A copy of the module gets its own, without networks."""

    def __init__(self, projection: FoldedProjection) -> None:
        self.projection: FoldedProjection | None = projection
        self._module = projection.module

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self.projection is None:
            return type(self._module).forward(self._module, *arguments, **named)
        return self.projection.forward(*arguments, **named)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = memo.get(id(self._module), self._module)
        return functools.partial(type(copied).forward, copied)


def _is_foldable(module: nn.Module, weight: torch.Tensor, context: torch.Tensor) -> bool:
    return (
        type(weight) in (nn.Parameter, torch.Tensor)
        and weight.dtype in FOLDABLE
        and weight.ndim == 2
        and weight.shape[1] == context.shape[-1]
        and weight.is_contiguous()
        and weight.device == context.device  # an offloaded one is elsewhere
        and getattr(module, "bias", None) is None  # to_k and to_v of all known UNets have none
    )


def _keep(network: Hypernetwork, key: tuple[object, ...], fold: Fold) -> None:
    """For the next handle. Products with weights that are gone make room."""
    for known, old in list(network.folds.items()):
        if old.mark.is_dead:
            network.folds.pop(known, None)
    network.folds[key] = fold


__all__ = ["FoldedProjection"]
