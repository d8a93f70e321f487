"""What can and can't be asked of a tensor, wherever it is: the one place that knows devices
apart.
"""

from __future__ import annotations

import torch
from torch import nn


def is_on_cpu(tensor: torch.Tensor) -> bool:
    """Whether its numbers can be read at once; on accelerators, reading waits for the device."""
    return tensor.device.type == "cpu"


def address(tensor: torch.Tensor) -> int:
    """Where its numbers are; 0 for tensors that have no address (DirectML's, traced ones)."""
    try:
        return tensor.data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0


def version(tensor: torch.Tensor) -> int | None:
    """Torch's count of changes in place; ``None`` for tensors of inference mode, which have
    none.
    """
    return None if tensor.is_inference() else tensor._version


def is_ordinary(*tensors: torch.Tensor) -> bool:
    """Whether these hold numbers of their own: not those that export, compilers and quantisation
    put in their place.
    """
    return all(type(tensor) in (torch.Tensor, nn.Parameter) for tensor in tensors)


def for_float64(device: torch.device) -> torch.device:
    """The device itself where it has float64 for certain, else the CPU."""
    return device if device.type in ("cpu", "cuda") else torch.device("cpu")
