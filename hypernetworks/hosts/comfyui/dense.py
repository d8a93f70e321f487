"""Which of ComfyUI's projections are plain products now, so that linear networks can be folded into
them.
"""

from __future__ import annotations

import comfy.ops
from torch import nn

from ...patching import is_plain_linear, is_torchs_own

_CHANGES = ("comfy_cast_weights", "weight_function", "bias_function")
"""What makes ComfyUI's layer bring its weight from elsewhere, cast it or patch it at each call."""


def is_dense(module: nn.Module) -> bool:
    """Whether ``module(x)`` is ``F.linear(x, module.weight)`` now.

    A layer that streams its weight (low or dynamic VRAM), casts it, or adds a LoRA at each call is
    not: networks then change its input instead, and the layer goes on doing what it does.
    """
    if is_plain_linear(module):
        return True

    # Packs for quantised weights make subclasses with a forward of their own.
    own = comfy.ops.disable_weight_init.Linear
    if not isinstance(module, own) or type(module).forward is not own.forward:
        return False
    return not any(getattr(module, name, None) for name in _CHANGES) and is_torchs_own(
        nn.Linear.forward
    )
