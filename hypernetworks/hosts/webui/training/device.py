"""Which device the webui was told to use: the trainer takes the same one."""

from __future__ import annotations

import sys

import torch

from ....devices import KINDS, name_of

_FORGES = ("backend.args", "ldm_patched.modules.args_parser")
"""Where webuis of Forge's kind keep options of their own."""


def named_device() -> str | None:
    """What ``--device`` gets, or ``None`` where the trainer may choose: no option of the webui says
    anything.

    A card that the webui was given by ``CUDA_VISIBLE_DEVICES``, as Forge's ``--gpu-device-id`` and
    reForge's ``--cuda-device`` do it, is the first one in the webui. In the trainer it is, too,
    because that inherits the variable.
    """
    from modules import devices

    device = getattr(devices, "device", None)
    if not isinstance(device, torch.device):
        return None
    if device.type == "cpu":
        return "cpu" if _cpu_is_named() else None

    # The trainer takes the first card unasked; any other number is an option's.
    name = name_of(device)
    return name if device.index and name.partition(":")[0] in KINDS else None


def _cpu_is_named() -> bool:
    """Whether an option says so; else this torch may just have no card that it can use."""
    from modules import shared

    # AUTOMATIC1111's names parts of the webui; SD.Next knows it, too.
    if {"all", "sd"} & set(getattr(shared.cmd_opts, "use_cpu", None) or ()):
        return True
    options = [getattr(sys.modules.get(name), "args", None) for name in _FORGES]
    return any(getattr(each, name, False) for each in options for name in ("always_cpu", "cpu"))
