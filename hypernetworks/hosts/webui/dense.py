"""Which of a webui's projections are plain products at this moment, so that linear networks can be
folded into them.

Each webui has linear layers of its own, or puts something into torch's. What is unknown here isn't
folded, and loses nothing but speed.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ...patching import is_plain_linear, is_torchs_own

_OWN_CLASSES = ("ForgeOperations.Linear", "disable_weight_init.Linear")
"""Forge's, and that of reForge and Classic."""


def is_dense(module: nn.Module) -> bool:
    """Whether ``module(x)`` is ``F.linear(x, module.weight)`` now, once :func:`apply_lora` has
    run.
    """
    if is_plain_linear(module):
        return True
    if type(module).__qualname__ in _OWN_CLASSES:
        return _is_dense_of_forge(module)

    lora = _lora_of(module)
    return lora is not None and not lora["shared"].opts.lora_functional


def apply_lora(module: nn.Module) -> None:
    """Let A1111's LoRA extension put its networks into the weight of a dense layer, if it acts
    here.

    It does so at the beginning of the layer's forward, which doesn't run when the layer is folded.
    """
    lora = _lora_of(module)
    if lora is not None:
        lora["network_apply_weights"](module)


def _is_dense_of_forge(module: nn.Module) -> bool:
    """Whether the layer computes with its weight as it is: neither cast at each call nor with
    anything added to it.
    """
    own: dict[str, Any] = {
        name: getattr(module, name, None)
        for name in (
            *("parameters_manual_cast", "scale_weight", "forge_online_loras"),  # Forge
            *("ldm_patched_cast_weights", "weight_function", "bias_function"),  # reForge, Classic
        )
    }
    known = own["parameters_manual_cast"] is not None or own["ldm_patched_cast_weights"] is not None
    changed = any(
        value is not None and value is not False and value != [] for value in own.values()
    )
    beneath = not isinstance(module, nn.Linear) or is_torchs_own(nn.Linear.forward)

    return known and not changed and beneath


def _lora_of(module: nn.Module) -> dict[str, Any] | None:
    """The globals of A1111's LoRA extension where it, and nothing else, has put itself before
    torch's own forward.
    """
    forward = getattr(type(module), "forward", None)
    if (
        not isinstance(module, nn.Linear)
        or getattr(forward, "__name__", "") != "network_Linear_forward"
    ):
        return None
    found: dict[str, Any] = getattr(forward, "__globals__", {})
    plain = is_torchs_own(getattr(found.get("originals"), "Linear_forward", None))
    return found if plain and {"shared", "network_apply_weights"} <= set(found) else None
