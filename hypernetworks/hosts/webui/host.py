"""Identifies the webui, finds its live UNet, and shows messages to the user."""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from torch import nn

from ...console import say
from ...errors import sendable

_FOREIGN_BACKENDS = ("openvino", "openvino_fx", "onediff", "stable-fast", "olive-ai", "pruna")
"""What SD.Next's setting "Compile backend" offers besides backends of ``torch.compile``."""


def has_module(name: str) -> bool:
    """Whether the host has this module, such as ``"modules.sd_unet"``."""
    try:
        return name in sys.modules or find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def without_comments(prompt: str) -> str:
    """The prompt as the host reads it: most take everything from ``#`` to the end of a line out of
    it, by a setting, before they look for tags.
    """
    if not has_module("modules.processing_scripts.comments"):
        return prompt
    from modules import shared
    from modules.processing_scripts import comments

    if getattr(shared.opts, "enable_prompt_comments", True) is False:
        return prompt
    strip = getattr(comments, "strip_comments", None)
    return str(strip(prompt)) if callable(strip) else prompt


def live_unet() -> nn.Module | None:
    """The UNet that the next step will run, or ``None`` while no model is loaded, or one of another
    kind.
    """
    return unwrapped(live_module())


def unwrapped(unet: Any) -> nn.Module | None:
    """The UNet itself where ``torch.compile`` has put something around it."""
    unet = getattr(unet, "_orig_mod", unet)
    return unet if isinstance(unet, nn.Module) else None


def live_module() -> Any:
    """The same with what ``torch.compile`` may have put around it."""
    model = loaded_model()
    patcher = getattr(getattr(model, "forge_objects", None), "unet", None)
    if patcher is not None:  # Forge, reForge, Classic
        return getattr(patcher.model, "diffusion_model", None)
    if (unet := pipeline_unet(model)) is not None:
        return unet
    return getattr(getattr(model, "model", None), "diffusion_model", None)


def loaded_model() -> Any:
    """What ``shared.sd_model`` is, or ``None`` while no model is loaded.

    To ask for ``shared.sd_model`` then would load one, or wait for the thread that does: the page
    would appear only after the model.
    """
    from modules import shared

    if getattr(shared, "sd_loaded", True) is False:  # SD.Next
        return None
    data: Any = getattr(sys.modules.get("modules.sd_models"), "model_data", None)
    if hasattr(data, "was_loaded_at_least_once"):  # AUTOMATIC1111, reForge, Classic
        return data.sd_model
    return getattr(shared, "sd_model", None)


def compiles_each_call() -> bool:
    """Whether the host exchanges its UNet for a compiled one during each call (Forge Neo).

    Between the calls, when networks are applied, the UNet looks like any other.
    """
    patcher = getattr(getattr(loaded_model(), "forge_objects", None), "unet", None)
    model = getattr(patcher, "model", None)
    return getattr(model, "_torch_compile_config", None) is not None


def pipeline_unet(pipe: Any) -> Any:
    """The UNet of a diffusers pipeline (SD.Next), or of one inside another; ``None`` if it has
    none.
    """
    for holder in (pipe, getattr(pipe, "pipe", None)):
        if (unet := getattr(holder, "unet", None)) is not None:  # a compiled one has no truth value
            return unet
    return None


def is_detail_pass(p: Any) -> bool:
    """Whether this is the copy of a job with which SD.Next's detailer draws a part of the image
    again.

    It says there that extra networks are disabled, and means that it minds them itself.
    """
    return bool(getattr(p, "recursion", False))


def replaced_unet() -> str | None:
    """The name of what runs in the UNet's place, if anything does.

    That is A1111's ``sd_unet`` (TensorRT and the like), and in SD.Next what its setting for
    compiling says.
    """
    from modules import shared

    backend, targets = (
        getattr(shared.opts, f"cuda_compile{end}", None) for end in ("_backend", "")
    )
    if backend in _FOREIGN_BACKENDS and "Model" in (targets or ()):
        return str(backend)
    if not has_module("modules.sd_unet"):
        return None
    from modules import sd_unet

    option = getattr(sd_unet, "current_unet_option", None)
    return (
        str(getattr(option, "label", option))
        if getattr(sd_unet, "current_unet", None) is not None
        else None
    )


def tell(p: Any, message: str) -> None:
    """Show a message once per job: beneath the image, in the API's response, and in the console."""
    message = sendable(message)  # pages and the API take UTF-8, and a file may have any name
    told = p.__dict__.setdefault("_hypernetwork_messages", [])
    if message in told:
        return

    told.append(message)
    comment = getattr(p, "comment", None)
    for sayer in (
        _log,
        comment,
    ):  # a closed console, or an error of the host, must not stop the image
        if callable(sayer):
            with suppress(Exception):
                sayer(f"Hypernetworks: {message}")


def _log(text: str) -> None:
    """Print to the console, and to the host's own log if it has one (SD.Next shows it on its
    page).
    """
    log = getattr(sys.modules.get("modules.logger"), "log", None)
    if log is not None:
        log.warning("%s", text)
    else:
        say(text, sys.stderr)


def say_fault(line: str) -> None:
    """Print a line and the traceback of the error that is being handled; never raises."""
    with suppress(Exception):
        say(f"Hypernetworks: {line}\n{traceback.format_exc().rstrip()}", sys.stderr)


def messages(p: Any) -> list[str]:
    """The messages that this job has shown."""
    return list(getattr(p, "_hypernetwork_messages", []))


def end_messages(p: Any) -> None:
    """The job is over. Its messages can be read until it, or a copy of it, runs again."""
    p.__dict__["_hypernetwork_messages_ended"] = True


def begin_messages(p: Any) -> None:
    """A job begins: scripts such as loopback use one again, with its messages of before."""
    if p.__dict__.pop("_hypernetwork_messages_ended", False):
        p.__dict__.pop("_hypernetwork_messages", None)


def tell_of_fault(p: Any, doing: str, error: BaseException) -> None:
    """Report an error of ours: traceback to the console, one line to the user; the job
    continues.
    """
    trace = traceback.format_exception(type(error), error, error.__traceback__)
    with suppress(Exception):  # as above
        say("".join(trace).rstrip(), sys.stderr)

    if p is not None:
        tell(
            p,
            (
                f"{doing} failed ({type(error).__name__}: {error}); the image is generated without "
                "hypernetworks"
            ),
        )
