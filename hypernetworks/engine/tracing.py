"""Compilers and exporters, which read Python once and keep what they saw: how to be left out of
what they read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _never() -> bool:
    return False


is_compiling: Callable[[], bool] = getattr(torch.compiler, "is_compiling", _never)
"""Whether a compiler or exporter is reading now; always ``False`` for torch before 2.3, which can't
tell.
"""

_is_dynamo: Callable[[], bool] = getattr(torch.compiler, "is_dynamo_compiling", _never)
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", _never)


def is_read_by_dynamo() -> bool:
    """Whether ``torch.compile`` is reading, which may call operators that only this process has."""
    return _is_dynamo() and not _is_exporting()


def outside_graph(function: _Function) -> _Function:
    """The function as one that ``torch.compile`` leaves alone and calls: it runs as plain Python
    each time.

    Costs some microseconds a call: for use where :func:`is_compiling`. Torch's compiler is imported
    at the first call.
    """
    disable = getattr(torch, "_disable_dynamo", None)  # what torch's own optimisers use
    left_alone: _Function = function if disable is None else disable(function)
    return left_alone
