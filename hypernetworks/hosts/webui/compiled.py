"""Compiled UNets: their code ignores hooks that were added later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def is_compiled(unet: Any) -> bool:
    """Whether ``torch.compile`` has been applied to the UNet, or to blocks of it.

    Args:
        unet: with what ``torch.compile`` may have put around it.
    """
    if hasattr(unet, "_orig_mod"):
        return True
    modules = unet.modules() if isinstance(unet, nn.Module) else ()
    return any(getattr(module, "_compiled_call_impl", None) is not None for module in modules)


def run_eagerly() -> Callable[[], None] | None:
    """Have torch run everything uncompiled, what is compiled already, too.

    Returns:
        Undoes it; ``None`` if this torch (before 2.6) can't.
    """
    set_stance = getattr(torch.compiler, "set_stance", None)
    if set_stance is None:
        return None
    stance = set_stance("force_eager")  # in force from here on, not only within a "with"
    return lambda: stance.__exit__(None, None, None)  # type: ignore[no-any-return]
