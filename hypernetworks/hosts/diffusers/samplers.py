"""Samplers by the names that webuis give them, as schedulers of diffusers made from a model's own
settings.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from ...errors import HypernetworkError

SAMPLERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "DDIM": ("DDIM", {}),
    "Euler": ("EulerDiscrete", {}),
    "Euler a": ("EulerAncestralDiscrete", {}),
    "DPM++ 2M": ("DPMSolverMultistep", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistep", {"use_karras_sigmas": True}),
    "UniPC": ("UniPCMultistep", {}),
    "Heun": ("HeunDiscrete", {}),
    "PNDM": ("PNDM", {}),
}
"""Class of the scheduler, without its suffix, and the settings that differ from the model's own."""


def build_sampler(name: str | None, own: Any) -> Any:
    """A fresh scheduler for one job.

    Args:
        name: a key of :data:`SAMPLERS`; ``None`` is the model's own.
        own: the model's own scheduler, whose settings (prediction, noise) are kept; it isn't
            changed.

    Raises:
        HypernetworkError: a name that isn't known.
    """
    if name is None:
        return type(own).from_config(own.config)
    if name not in SAMPLERS:
        raise HypernetworkError(f'there is no sampler "{name}": use one of {", ".join(SAMPLERS)}')

    kind, settings = SAMPLERS[name]
    return getattr(importlib.import_module("diffusers"), f"{kind}Scheduler").from_config(
        own.config, **settings
    )


def check_steps(name: str | None, own: Any, steps: int) -> None:
    """Raise when a sampler can't run with so few steps: PNDM needs at least four.

    Args:
        name, own: as for :func:`build_sampler`.

    Raises:
        HypernetworkError: it can't.
    """
    try:
        build_sampler(name, own).set_timesteps(steps)
    except (ValueError, IndexError) as error:  # of numpy: diffusers doesn't look
        few = f"{steps} step{'s' if steps != 1 else ''}"
        raise HypernetworkError(
            f"the sampler {name or sampler_name(own)} can't do {few}: use more steps, or choose "
            "another sampler"
        ) from error


def sampler_name(own: Any) -> str:
    """What to call a model's own scheduler: a key of :data:`SAMPLERS` where there is one for its
    class.
    """
    kind = type(own).__name__.removesuffix("Scheduler")
    karras = bool(own.config.get("use_karras_sigmas"))
    known = {
        (k, bool(settings.get("use_karras_sigmas"))): name
        for name, (k, settings) in SAMPLERS.items()
    }
    return known.get((kind, karras), known.get((kind, False), kind))
