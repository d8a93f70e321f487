"""What stands in for the ``forward`` of a projection while networks act on it.

It is an attribute of the module itself, not a hook: compiled code takes no notice of hooks that
come and go, but is made anew when a module gets, or loses, a forward of its own.

Under a compiler it is an operator of :mod:`.in_graph` where that is possible, and otherwise plain
Python, at which the graph ends.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import nn

from ..engine.tracing import is_compiling, is_read_by_dynamo, outside_graph
from .in_graph import Operator, operators, ticket_of


class Acts(Protocol):
    """What a stand-in asks."""

    def forward(
        self,
        module: nn.Module,
        own: Callable[..., Any] | None,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
    ) -> Any:
        """What the module does, with networks in it; ``own`` is a forward of its own that the
        module had before.
        """

    def context_in_graph(self, context: torch.Tensor) -> torch.Tensor:
        """The changed context, in memory that is used for nothing else."""

    def notice_graph(self) -> None:
        """A compiled graph is about to call :meth:`forward`."""

    def outer_if_folded(self, own: Callable[..., Any] | None) -> int:
        """How wide the result is, where the networks may be folded into the weight; else 0."""


class StandIn:
    """The forward of one module. Copies and pickles of the module get one without networks.

    Attributes:
        projection: what acts; ``None`` for nothing: then the module does what it would do by
            itself.
        own: a forward of its own that the module had before, as offloading and other extensions put
            there.
        ticket: what an operator in a compiled graph finds it by.
        is_entered_outside: whether a UNet call is noticed outside of what is compiled. A compiler
            takes no notice of hooks, but of this: what it made for one isn't used for the other.
        outer: width of the module's result, where the operator may stand for the module as a whole,
            with networks folded into its weight; 0 where it may only change the context.
    """

    __slots__ = (
        "__weakref__",
        "_module",
        "is_entered_outside",
        "operators",
        "outer",
        "own",
        "projection",
        "ticket",
    )

    def __init__(self, module: nn.Module, own: Callable[..., Any] | None = None) -> None:
        self._module = weakref.ref(module)
        self.own = own
        self.projection: Acts | None = None
        self.outer, self.is_entered_outside = 0, False
        self.operators: tuple[Operator, Operator] | None = None
        self.ticket: torch.Tensor | None = None

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """What ``module.forward`` does now."""
        # What a compiler reads here would be frozen: the multipliers of this step, for instance.
        if is_compiling():
            return self._compiled(arguments, named)
        return self.run(arguments, named)

    def _compiled(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """What a compiler reads: everything in here is decided once, when it compiles."""
        is_usual = len(arguments) == 1 and not named and isinstance(arguments[0], torch.Tensor)
        # The operators have no gradients, and an exporter wants the arithmetic itself.
        if (
            (self.operators is None or self.is_entered_outside is None)  # the second: to be noticed
            or not is_usual
            or not is_read_by_dynamo()
            or torch.is_grad_enabled()
        ):
            return _run_outside_graph(self, arguments, named)

        changed, projected = self.operators
        context = arguments[0]
        # Under autocast the result has another type than the context.
        if self.outer and not torch.is_autocast_enabled(context.device.type):
            return projected(context, self.outer, self.ticket)
        context = changed(context, self.ticket)
        if self.own is not None:
            return self.own(context)

        module = self._module()
        return type(module).forward(module, context)  # type: ignore[union-attr]

    def run(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """The same, where no compiler reads."""
        module = self._module()
        assert module is not None
        if self.projection is not None:
            return self.projection.forward(module, self.own, arguments, named)
        if self.own is not None:
            return self.own(*arguments, **named)
        return type(module).forward(module, *arguments, **named)

    def run_in_graph(self, context: torch.Tensor) -> Any:
        """The module's result, as part of a compiled graph."""
        if self.projection is not None:
            self.projection.notice_graph()
        return self.run((context,), {})

    def context_in_graph(self, context: torch.Tensor) -> torch.Tensor:
        """The changed context, in memory that is used for nothing else."""
        if self.projection is None:
            return context.clone(memory_format=torch.contiguous_format)
        return self.projection.context_in_graph(context)

    def stands_for(self, module: nn.Module) -> bool:
        """Whether it is this module's own: modules that share their attributes have those of
        another.
        """
        return self._module() is module

    def put(self, projection: Acts, *, is_entered_outside: bool = False) -> None:
        """Let it act, as its module's forward."""
        module = self._module()
        assert module is not None
        self.projection, self.operators = projection, operators()
        self.outer = projection.outer_if_folded(self.own)
        self.is_entered_outside = is_entered_outside
        if self.ticket is None and self.operators is not None:
            self.ticket = ticket_of(self)

        # A method, not the object: a compiler looks at the type of a method's object, but at the
        # identity of a callable, and would compile each block of the UNet anew.
        vars(module)["forward"] = self.forward

    def take_away(self) -> None:
        """Leave the module as it was.

        Where others wrapped it meanwhile, it goes on as its own forward.
        """
        self.projection = None
        module = self._module()
        if module is None or of(vars(module).get("forward")) is not self:
            return
        # A module without a forward of its own must have none again, or its class's is hidden.
        if self.own is None:
            del vars(module)["forward"]
            _RESTING[module] = self
        else:
            vars(module)["forward"], self.own = self.own, None

    def __deepcopy__(self, memo: dict[int, Any]) -> StandIn:
        """For a copy of the module: its own forward, which has no networks."""
        module = self._module()
        copied = cast(nn.Module, memo.get(id(module), module))
        return StandIn(copied, copy.deepcopy(self.own, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return StandIn, (cast(nn.Module, self._module()), self.own)


_RESTING: weakref.WeakKeyDictionary[nn.Module, StandIn] = weakref.WeakKeyDictionary()
"""Those taken away, for the next time: compiled code knows them, and need not be made anew."""


def stand_in_for(module: nn.Module) -> StandIn:
    """One that can be put in place of the module's forward now."""
    own = vars(module).get("forward")
    if (left := of(own)) is not None:  # in a copy, or where others wrapped it
        own = left.own
    if own is None:
        return _RESTING.pop(module, None) or StandIn(module)
    return StandIn(module, own)


def acting_on(module: nn.Module) -> StandIn | None:
    """The stand-in that acts on the module now, if there is one."""
    found = of(vars(module).get("forward"))
    return found if found is not None and found.projection is not None else None


def of(forward: object) -> StandIn | None:
    """The stand-in whose forward this is; ``None`` for the forwards of others."""
    owner = getattr(forward, "__self__", None)
    return owner if isinstance(owner, StandIn) else None


def _run(stand_in: StandIn, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return stand_in.run(arguments, named)


_run_outside_graph = outside_graph(_run)
