"""What stands in for the ``forward`` of a projection while networks act on it.

It is an attribute of the module itself, not a hook: compiled code takes no notice of hooks that
come and go, but is made anew when a module gets, or loses, a forward of its own.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any, Protocol, cast

from torch import nn

from ..engine.tracing import is_compiling, outside_graph


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


class StandIn:
    """The forward of one module. Copies and pickles of the module get one without networks.

    Attributes:
        projection: what acts; ``None`` for nothing: then the module does what it would do by
            itself.
        own: a forward of its own that the module had before, as offloading and other extensions put
            there.
    """

    __slots__ = ("__weakref__", "_module", "own", "projection")

    def __init__(self, module: nn.Module, own: Callable[..., Any] | None = None) -> None:
        self._module = weakref.ref(module)
        self.own = own
        self.projection: Acts | None = None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """What ``module.forward`` does now."""
        # What a compiler reads here would be frozen: the multipliers of this step, for instance.
        if is_compiling():
            return _run_outside_graph(self, arguments, named)
        return self.run(arguments, named)

    def run(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """The same, where no compiler reads."""
        module = self._module()
        assert module is not None
        if self.projection is not None:
            return self.projection.forward(module, self.own, arguments, named)
        if self.own is not None:
            return self.own(*arguments, **named)
        return type(module).forward(module, *arguments, **named)

    def stands_for(self, module: nn.Module) -> bool:
        """Whether it is this module's own: modules that share their attributes have those of
        another.
        """
        return self._module() is module

    def put(self, projection: Acts) -> None:
        """Let it act, as its module's forward."""
        module = self._module()
        assert module is not None
        self.projection = projection
        vars(module)["forward"] = self

    def take_away(self) -> None:
        """Leave the module as it was.

        Where others wrapped it meanwhile, it goes on as its own forward.
        """
        self.projection = None
        module = self._module()
        if module is None or vars(module).get("forward") is not self:
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
    if isinstance(own, StandIn):  # left over in a copy, or where others wrapped it
        own = own.own
    if own is None:
        return _RESTING.pop(module, None) or StandIn(module)
    return StandIn(module, own)


def acting_on(module: nn.Module) -> StandIn | None:
    """The stand-in that acts on the module now, if there is one."""
    found = vars(module).get("forward")
    return found if isinstance(found, StandIn) and found.projection is not None else None


def _run(stand_in: StandIn, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return stand_in.run(arguments, named)


_run_outside_graph = outside_graph(_run)
