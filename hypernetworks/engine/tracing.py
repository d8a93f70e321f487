"""How to stay out of the graphs of compilers and exporters.

They trace Python code once and replay what they saw, so a check at each call would be lost.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _never() -> bool:
    return False


_IS_OLD = not hasattr(torch.compiler, "is_compiling")
is_compiling: Callable[[], bool] = getattr(
    torch._utils if _IS_OLD else torch.compiler, "is_compiling", _never
)
"""Whether a compiler or exporter is tracing now. Before torch 2.3 it is another function that is
``True`` then.
"""

_is_dynamo: Callable[[], bool] = getattr(torch.compiler, "is_dynamo_compiling", _never)


def is_read_by_dynamo() -> bool:
    """Whether ``torch.compile`` is reading, which may call operators that only this process has."""
    # Up to torch 2.11, is_exporting() is true wherever dynamo reads it; what it returns isn't.
    return _is_dynamo() and not getattr(torch.compiler, "_is_exporting_flag", False)


def must_hide() -> bool:
    """Whether a compiler may read also what is called between two graphs, as it does before torch
    2.3: call that through :func:`outside_graph`.
    """
    return _IS_OLD and "torch._dynamo" in sys.modules  # nobody compiles without it


def outside_graph(function: _Function) -> _Function:
    """The function, but called by ``torch.compile`` instead of traced: it runs as Python each time.

    This takes some microseconds per call, so use it only if :func:`is_compiling`. The first call
    imports torch's compiler.
    """
    disable = getattr(torch, "_disable_dynamo", None)  # which torch's own optimizers use
    left_alone: _Function = function if disable is None else disable(function)
    return left_alone
