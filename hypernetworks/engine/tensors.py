"""Questions about a tensor whose answers differ between devices and kinds of tensors."""

from __future__ import annotations

import torch
from torch import nn


def is_on_cpu(tensor: torch.Tensor) -> bool:
    """Whether its values can be read at once; on accelerators, reading waits for the device."""
    return tensor.device.type == "cpu"


def address(tensor: torch.Tensor) -> int:
    """The address of its data; 0 for tensors without one (DirectML's, traced ones)."""
    try:
        return tensor.data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0


def bytes_of(*tensors: torch.Tensor) -> int:
    """Bytes that their numbers take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def version(tensor: torch.Tensor) -> int | None:
    """Torch's count of changes in place; ``None`` for inference tensors, which have no count."""
    return None if tensor.is_inference() else tensor._version


def is_ordinary(*tensors: torch.Tensor) -> bool:
    """Whether these are plain tensors with data.

    Export, compilers and quantisation use other classes in their place.
    """
    return all(type(tensor) in (torch.Tensor, nn.Parameter) for tensor in tensors)


def for_float64(device: torch.device) -> torch.device:
    """The device itself if it surely has float64 (MPS and DirectML don't), else the CPU."""
    return device if device.type in ("cpu", "cuda") else torch.device("cpu")
