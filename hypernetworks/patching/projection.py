"""``to_k`` or ``to_v`` of one attention module while networks change its input."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .seam import Seam
from .sites import CROSS
from .stand_in import StandIn, stand_in_for


class Projection:
    """One projection of one attention module.

    Args:
        seam: what all projections of a handle share.
        index: of the attention module.
        side: keys or values.
        kind: ``"cross"``, ``"self"`` or ``None``.
        module: ``to_k`` or ``to_v``.
    """

    def __init__(
        self, seam: Seam, index: int, side: int, kind: str | None, module: nn.Module
    ) -> None:
        self.seam, self.index, self.side, self.kind, self.module = seam, index, side, kind, module
        self.path = ""
        self.was_reached = False
        self.stand_in: StandIn | None = None

    def install(self) -> None:
        """Replace the module's forward method."""
        self.stand_in = stand_in_for(self.module)
        self.stand_in.put(self, is_entered_outside=self.seam.is_entered_outside)

    def uninstall(self) -> None:
        """Restore the module."""
        if self.stand_in is not None:
            self.stand_in.take_away()
            self.stand_in = None

    def forward(
        self,
        module: nn.Module,
        own: Callable[..., Any] | None,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
    ) -> Any:
        """Compute the module with the changed context.

        The context may have any name, and there may be other arguments.
        """
        self.was_reached = True
        if arguments:
            arguments = (self.changed(arguments[0]), *arguments[1:])
        elif name := _context_name(own or type(module).forward, named):
            named = {**named, name: self.changed(named[name])}
        if own is not None:
            return own(*arguments, **named)

        return type(module).forward(module, *arguments, **named)

    def notice_graph(self) -> None:
        """Trust no tensor of this call to stay what it is: a graph writes where it has done
        reading, and nothing counts that.
        """
        self.seam.call.is_compiled = True

    def outer_if_folded(self, own: Callable[..., Any] | None) -> int:
        """0: only the context is changed."""
        return 0

    def context_in_graph(self, context: torch.Tensor) -> torch.Tensor:
        """The same as :meth:`changed` for a compiled graph, which may write to the result's memory
        later.
        """
        self.was_reached = self.seam.call.is_compiled = True
        if self.seam.is_entered_outside and not self.seam.call.running:
            self.seam.check_unnoticed()
        changed = self.changed(context)
        if changed is context or self.kind == CROSS:  # other layers get what is remembered, too
            return changed.clone(memory_format=torch.contiguous_format)  # type: ignore[no-any-return]
        return changed.contiguous()  # type: ignore[no-any-return]

    def changed(self, context: Any) -> Any:
        """The context, changed by the networks; itself if none changes it."""
        # For anything but a tensor, the module's own forward has the best error.
        if not isinstance(context, torch.Tensor):
            return context

        changed = self.seam.changed(context, self.index, self.side, self.kind)
        self.path = "untouched" if changed is context else "input"
        return changed


def _context_name(forward: Callable[..., Any], named: dict[str, Any]) -> str | None:
    """The argument that is the context: the first tensor, in the order of the parameters."""
    order = [*(name for name in _parameters(forward) if name in named), *named]
    return next((name for name in order if isinstance(named[name], torch.Tensor)), None)


@functools.lru_cache(maxsize=256)
def _parameters(forward: Callable[..., Any]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(forward).parameters)
    except (TypeError, ValueError):  # built in
        return ()
