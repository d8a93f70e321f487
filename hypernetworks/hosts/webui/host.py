"""Which webui this is, its live UNet, and how it tells the user something."""

from __future__ import annotations

import sys
import traceback
from importlib.util import find_spec
from typing import Any

from torch import nn


def has_module(name: str) -> bool:
    """Whether the host has this module, such as ``"modules.sd_unet"``."""
    try:
        return name in sys.modules or find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def live_unet() -> nn.Module | None:
    """The UNet that the next step will run, or ``None`` while no model is loaded, or one of another kind."""
    from modules import shared

    model: Any = getattr(shared, "sd_model", None)
    patcher = getattr(getattr(model, "forge_objects", None), "unet", None)
    if patcher is not None:  # Forge, reForge, Classic
        unet = getattr(patcher.model, "diffusion_model", None)
    elif getattr(model, "unet", None) is not None:  # SD.Next, on diffusers
        unet = model.unet
    else:
        unet = getattr(getattr(model, "model", None), "diffusion_model", None)
    unet = getattr(unet, "_orig_mod", unet)  # behind torch.compile
    return unet if isinstance(unet, nn.Module) else None


def replaced_unet() -> str | None:
    """The name of what runs in the UNet's place (A1111's ``sd_unet``: TensorRT and the like), if anything does."""
    if not has_module("modules.sd_unet"):
        return None
    from modules import sd_unet

    option = getattr(sd_unet, "current_unet_option", None)
    return str(getattr(option, "label", option)) if getattr(sd_unet, "current_unet", None) is not None else None


def tell(p: Any, message: str) -> None:
    """A line for the user, once per job: beneath the picture, in the API's answer, and in the console."""
    told = p.__dict__.setdefault("_hypernetwork_messages", [])
    if message in told:
        return
    told.append(message)
    print(f"Hypernetworks: {message}", file=sys.stderr)
    comment = getattr(p, "comment", None)
    if callable(comment):
        comment(f"Hypernetworks: {message}")


def messages(p: Any) -> list[str]:
    """What this job's user was told."""
    return list(getattr(p, "_hypernetwork_messages", []))


def tell_of_fault(p: Any, doing: str, error: BaseException) -> None:
    """A fault of ours: its trace goes to the console, a line to the user, and the job goes on."""
    traceback.print_exception(type(error), error, error.__traceback__)
    if p is not None:
        tell(p, f"{doing} failed ({type(error).__name__}: {error}); the picture is made without hypernetworks")
