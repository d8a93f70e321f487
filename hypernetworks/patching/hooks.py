"""Hooks on a UNet that act for one handle, and that copies and pickles of the UNet don't take with
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..engine.tracing import is_compiling, outside_graph


class Hook:
    """A hook that calls a function; a copy of it, in a copy of the UNet, does nothing."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> None:
        """What torch calls."""
        if is_compiling():
            _call_outside_graph(self._function, arguments)
        else:
            self._function(*arguments)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return does_nothing

    def __reduce__(self) -> tuple[Any, ...]:
        return _does_nothing, ()


class EagerHook(Hook):
    """A hook that compiled code leaves out."""

    def __call__(self, *arguments: Any) -> None:
        """What torch calls."""
        if not is_compiling():
            self._function(*arguments)


def does_nothing(*_: Any) -> None:
    """A hook without effect."""


def _does_nothing() -> Callable[..., None]:
    return does_nothing


def _call(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    function(*arguments)


_call_outside_graph = outside_graph(_call)
