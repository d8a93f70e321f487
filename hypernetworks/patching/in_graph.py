"""Two operators that stand for networks in what ``torch.compile`` makes.

A compiler knows their shapes and no more: it leaves them as calls, so that its graph needn't end at
a projection, and the multipliers of the step are read anew in every call. What surrounds them is
compiled as it would be without networks.

They find their projection by a number in a tensor: a plain number would be part of the graph, and
each block of a UNet would be compiled by itself.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch

Operator = Callable[..., torch.Tensor]


class Transforms(Protocol):
    """What an operator calls: the stand-in of one projection."""

    def run_in_graph(self, context: torch.Tensor) -> Any:
        """The projection's result."""

    def context_in_graph(self, context: torch.Tensor) -> torch.Tensor:
        """The changed context, in memory that is used for nothing else."""


_KNOWN: weakref.WeakValueDictionary[int, Transforms] = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()


def ticket_of(stand_in: Transforms) -> torch.Tensor:
    """The number under which the operators find a stand-in from now on."""
    number = next(_NUMBERS)
    _KNOWN[number] = stand_in
    with torch.inference_mode(False):
        return torch.tensor(number, device="cpu")  # to be read without waiting


@functools.cache
def operators() -> tuple[Operator, Operator] | None:
    """``changed(context, ticket)`` and ``projected(context, outer, ticket)``; ``None`` where torch
    is too old.

    An operator in a CUDA graph would be recorded once and replayed with the multipliers of that
    step, so torch must know the mark that keeps them out (since 2.8).
    """
    tag: Any = getattr(torch.Tag, "cudagraph_unsafe", None)
    if tag is None or not hasattr(torch.library, "register_fake"):
        return None

    # Another copy of the package, under another name, has operators of its own.
    space = __name__.partition(".")[0]
    try:
        make: Any = torch.library.Library
        library = make(space, "FRAGMENT")
        library.define("changed(Tensor context, Tensor ticket) -> Tensor", tags=(tag,))
        library.define(
            "projected(Tensor context, SymInt outer, Tensor ticket) -> Tensor", tags=(tag,)
        )
        library.impl("changed", _changed, "CompositeExplicitAutograd")
        library.impl("projected", _projected, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{space}::changed", _shape_of_changed, lib=library)
        torch.library.register_fake(f"{space}::projected", _shape_of_projected, lib=library)
    except RuntimeError:  # the package was loaded twice under one name
        return None

    _LIBRARIES.append(library)
    made = getattr(torch.ops, space)
    return made.changed.default, made.projected.default


_LIBRARIES: list[object] = []
"""What goes takes its operators with it."""


def _changed(context: torch.Tensor, ticket: torch.Tensor) -> torch.Tensor:
    stand_in = _KNOWN.get(int(ticket))
    if stand_in is None:
        return context.clone(memory_format=torch.contiguous_format)
    return stand_in.context_in_graph(context)


def _projected(context: torch.Tensor, outer: int, ticket: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = _KNOWN[int(ticket)].run_in_graph(context)
    return result.contiguous()


def _shape_of_changed(context: torch.Tensor, ticket: torch.Tensor) -> torch.Tensor:
    return context.new_empty(context.shape)


def _shape_of_projected(context: torch.Tensor, outer: int, ticket: torch.Tensor) -> torch.Tensor:
    return context.new_empty((*context.shape[:-1], outer))
