"""What the projections of a handle share: networks, multipliers, the state of a call, limits."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ..engine.tensors import is_on_cpu, version
from ..errors import PatchError
from .site_multipliers import SiteMultipliers
from .sites import CROSS, SELF
from .watch import ContextWatch

FOLDED_BYTES = 512 << 20
"""Most bytes of products and weights that a handle keeps. SD1.5 in fp32 needs 197 MiB, SDXL in fp16
390 MiB for weights alone.
"""

UNNOTICED = (
    "the UNet has changed since the networks were applied, and runs as a second compiled copy, "
    "whose calls aren't noticed: call what apply was given, or apply the networks to this one"
)

IsDense = Callable[[nn.Module], bool]
"""Called before a folded projection is used: whether ``module(x)`` is exactly
``F.linear(x, module.weight)``.
"""
Prepare = Callable[[nn.Module], object]
"""Called with a dense projection before its weight is used.

It does what the layer's own forward method, which isn't called, would do to the weight first.
"""


def nothing(_: nn.Module) -> None:
    """Do nothing: torch's own layers need no preparation."""


def is_plain_linear(module: nn.Module) -> bool:
    """Whether a module is torch's own linear layer, with torch's own forward method."""
    return isinstance(module, nn.Linear) and is_torchs_own(getattr(type(module), "forward", None))


def is_torchs_own(forward: object) -> bool:
    """Whether a forward method is that of torch's linear layer."""
    # By its code: other functions may have the same name.
    code = getattr(forward, "__code__", None)
    return code is not None and code.co_filename == nn.modules.linear.__file__


Multipliers = tuple[tuple[float, ...], ...]
"""Of the networks, for each image."""


class Remembered(NamedTuple):
    """A context that was transformed in this call.

    It is kept until the call ends, so that no other tensor gets its address. Changes in place are
    detected by its version, or, in inference mode, where it has none, by a copy of its values.
    """

    context: torch.Tensor
    side: int
    multipliers: Multipliers
    result: torch.Tensor
    with_gradients: bool
    version: int | None
    numbers: torch.Tensor | None

    def is_of(self, context: torch.Tensor, side: int, multipliers: Multipliers) -> bool:
        """Whether transforming the context now would give the same result."""
        return (
            self.context is context
            and self.side == side
            and self.multipliers == multipliers
            and self.with_gradients == torch.is_grad_enabled()
            and self.version == version(context)
            and (self.numbers is None or torch.equal(self.numbers, context))
        )


class Call(threading.local):
    """What one UNet call remembers, per thread: contexts already transformed.

    Empty outside a call.

    Attributes:
        given: what the UNet was called with.
        is_compiled: whether networks were computed inside a compiled graph in this call.
        waiting: what one side has computed for the other; see :mod:`.last_layer`.
    """

    def __init__(self) -> None:
        self.running = self.is_compiled = False
        self.given: tuple[object, ...] = ()
        self.rows: tuple[int, ...] | None = None
        self.remembered: list[Remembered] = []
        self.waiting: tuple[Any, ...] | None = None

    def begin(self, rows: Sequence[int] | None, given: tuple[object, ...] = ()) -> None:
        """A UNet call starts, with these rows."""
        self.running, self.rows = True, None if rows is None else tuple(rows)
        self.is_compiled, self.given = False, given
        self.waiting = None
        self.remembered.clear()  # an interrupt may have kept the last call from ending

    def end(self) -> None:
        """It is over."""
        self.running, self.rows, self.given, self.waiting = False, None, (), None
        self.remembered.clear()


class Seam:
    """The networks of one handle, for its projections.

    Args:
        per_image: multipliers for all rows of the UNet's batch, or for each image.
        fail: a method that handles an error inside a hook: raises it, or removes the networks.
        is_dense: see :data:`IsDense`.
        prepare: see :data:`Prepare`.
        is_entered_outside: whether UNet calls are noticed outside of what is compiled.
        is_in_place: a method that says whether the UNet still has the modules that were hooked.

    Attributes:
        bytes_left: what may still be folded.
        bytes_for_products: the part of it that the folded weights leave, for keeping the products
            that they were made of.
    """

    def __init__(
        self,
        per_image: Sequence[SiteMultipliers],
        fail: Callable[[Exception], None],
        is_dense: IsDense,
        prepare: Prepare,
        is_entered_outside: bool = False,
        is_in_place: Callable[[], bool] | None = None,
    ) -> None:
        self.is_entered_outside = is_entered_outside
        self._is_in_place = weakref.WeakMethod(is_in_place) if is_in_place is not None else None
        self.is_dense, self.prepare = is_dense, prepare
        self.start_over(per_image)
        # Weak, or handle and seam would keep each other, and the networks, in memory.
        self._fail = weakref.WeakMethod(fail)
        self.call = Call()
        self.watch = ContextWatch()

    def start_over(self, per_image: Sequence[SiteMultipliers]) -> None:
        """Start again, for other projections."""
        self.per_image = tuple(per_image)
        self.bytes_left = self.bytes_for_products = FOLDED_BYTES
        self.folds_on: torch.device | None = None
        self.widths = frozenset(width for image in per_image for width in image.stack.widths)

    def has_width_of(self, context: torch.Tensor) -> bool:
        """Whether any network changes contexts of this width: many have a part of a UNet's widths,
        and the other projections should cost nothing.
        """
        return context.ndim > 0 and context.shape[-1] in self.widths

    def reserve(self, weights: int) -> None:
        """Leave room for so many bytes of folded weights before any product is kept."""
        self.bytes_for_products = max(0, FOLDED_BYTES - weights)

    def note_fold(self, weight: torch.Tensor) -> None:
        """A weight was folded: the handle looks for changes of those on accelerators."""
        if not is_on_cpu(weight):
            self.folds_on = weight.device

    def fail(self, error: Exception) -> None:
        """Report an error to the handle."""
        if (tell := self._fail()) is None:
            raise error
        tell(error)

    def check_unnoticed(self) -> None:
        """Report a UNet that has changed, where compiled code runs whose calls nobody notices."""
        check = self._is_in_place() if self._is_in_place is not None else None
        if check is not None and not check():
            self.fail(PatchError(UNNOTICED))

    def changed(
        self, context: torch.Tensor, index: int, side: int, kind: str | None
    ) -> torch.Tensor:
        """The context of a projection, changed by the networks.

        Itself if no network changes it, or after an error.
        """
        if not self.has_width_of(context):
            return context
        # Multiplier 0 must take no time, and must not change a bit by a round trip through fp32.
        multipliers = tuple(image.multipliers(index, side) for image in self.per_image)
        if not any(map(any, multipliers)):
            return context

        try:
            if kind == CROSS and self.call.running and self._may_remember(context):
                return self._once_per_call(context, index, side, multipliers)
            return self._transformed(context, side, multipliers, exact=kind != SELF)
        except Exception as error:
            self.fail(error)
            return context

    def _may_remember(self, context: torch.Tensor) -> bool:
        """Not what a block with gradient checkpointing needs, as it will compute the same again,
        alone; see docs. In a compiled graph only what the UNet was given: into other memory the
        compiler writes when it has done with it, and nothing counts that.
        """
        if self.call.is_compiled and not any(context is given for given in self.call.given):
            return False
        if not torch.is_grad_enabled():
            return not self.watch.distrusts
        if context.requires_grad or any(
            network.training for image in self.per_image for network in image.stack.networks
        ):
            return not _saves_elsewhere()
        return True

    def _once_per_call(
        self, context: torch.Tensor, index: int, side: int, multipliers: Multipliers
    ) -> torch.Tensor:
        """Transform a context that all layers of a UNet call share, once for all of them."""
        for seen in self.call.remembered:
            if seen.is_of(context, side, multipliers):
                return seen.result

        made = self._for_sides(context, index, side, multipliers)
        numbers = None
        if context.is_inference():
            if is_on_cpu(context):
                numbers = context.clone()
            else:  # comparing would wait for the device, so it is done when the call ends
                self.watch.note(context)

        for which, result in made.items():
            self.call.remembered.append(
                Remembered(
                    context,
                    which,
                    multipliers,
                    result,
                    torch.is_grad_enabled(),
                    version(context),
                    numbers,
                )
            )
        return made[side]

    def _for_sides(
        self, context: torch.Tensor, index: int, side: int, multipliers: Multipliers
    ) -> dict[int, torch.Tensor]:
        """The context for this side; and for the other one, which comes next, where that costs
        next to nothing more.
        """
        other = tuple(image.multipliers(index, 1 - side) for image in self.per_image)
        if other == multipliers and self._rows_of(context) is None:
            both = self.per_image[0].stack.transform_both(context, multipliers[0])
            if both is not None:
                return dict(enumerate(both))
        return {side: self._transformed(context, side, multipliers, exact=True)}

    def _transformed(
        self,
        context: torch.Tensor,
        side: int,
        multipliers: Multipliers,
        *,
        exact: bool,
    ) -> torch.Tensor:
        """Transform each image's rows by its own networks; without rows, all by the first ones."""
        rows = self._rows_of(context)
        if rows is None:
            return self.per_image[0].stack.transform(context, side, multipliers[0], exact=exact)

        result = context.clone()
        for number in sorted(set(rows)):
            chosen = _indices(rows, number, context.device)
            stack = self.per_image[number].stack
            result[chosen] = stack.transform(
                context[chosen], side, multipliers[number], exact=exact
            )
        return result

    def _rows_of(self, context: torch.Tensor) -> tuple[int, ...] | None:
        """Which image each row belongs to, where images have networks of their own."""
        rows = self.call.rows
        is_by_rows = rows is not None and len(self.per_image) > 1 and len(rows) == len(context)
        return rows if is_by_rows else None


@functools.lru_cache(maxsize=64)
def _indices(rows: tuple[int, ...], number: int, device: torch.device) -> torch.Tensor:
    """Where an image's rows are in the batch; kept, as bringing numbers to a device waits for
    it.
    """
    with torch.inference_mode(False):
        return torch.tensor([i for i, row in enumerate(rows) if row == number], device=device)


def _saves_elsewhere() -> bool:
    """Whether autograd passes on what it saves, as inside a block with gradient checkpointing."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return top is None or top(True) is not None
