"""Hooks on a UNet for one handle, which copies and pickles of the UNet don't contain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..engine.tracing import is_compiling, must_hide, outside_graph


class Hook:
    """A hook that calls a function; its copy, in a copy of the UNet, does nothing."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> None:
        """Call the function, outside the graph of a compiler."""
        if is_compiling() or must_hide():
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
            super().__call__(*arguments)


def does_nothing(*_: Any) -> None:
    """A hook without effect."""


def _does_nothing() -> Callable[..., None]:
    return does_nothing


# torch's error about fullgraph=True shows this name, and nothing else that we could say there.
def apply_networks_to_what_compile_returned(
    function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    """Call the function of a hook, at which a compiler's graph ends."""
    function(*arguments)


_call_outside_graph = outside_graph(apply_networks_to_what_compile_returned)
