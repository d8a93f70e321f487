"""An activation and the layer norm after it, as one kernel on graphics cards that have Triton.

torch has a kernel for each, and so reads and writes the widest tensor of a network twice. Triton
comes with PyTorch's CUDA builds for Linux. Where it is missing, can't compile, or computes anything
else than torch does, torch's own kernels are used: that is tried once for a device, at first use.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

Normed = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
"""``(inputs, weight, bias, eps)`` -> ``layer_norm(activation(inputs))``."""

ACTIVATIONS: dict[type[nn.Module], int] = {
    nn.ReLU: 1,
    nn.Hardswish: 2,  # AUTOMATIC1111's "swish"
    nn.SiLU: 3,
    nn.GELU: 4,
    nn.LeakyReLU: 5,
}
"""What the kernel can compute, with the default arguments that hypernetworks use, by its number."""
WIDEST = 16_384
"""Columns that one program of the kernel may hold."""


def normed(
    activation: nn.Module, width: int, device: torch.device, dtype: torch.dtype
) -> Normed | None:
    """The kernel for an activation and a norm of this width; ``None`` where torch's are used."""
    number = ACTIVATIONS.get(type(activation))
    if device.type != "cuda" or number is None or width > WIDEST:
        return None
    if dtype not in (torch.float16, torch.bfloat16) or torch.cuda.is_current_stream_capturing():
        return None
    return _checked(type(activation), device, dtype)  # type: ignore[arg-type]


@functools.cache
def _checked(kind: type[nn.Module], device: torch.device, dtype: torch.dtype) -> Normed | None:
    """The kernel, if it exists there and agrees with torch."""
    with torch.inference_mode(False), torch.no_grad():
        try:
            made = compiled(kind)
            return made if agrees(made, kind(), device, dtype) else None
        except Exception:  # no Triton, no compiler, another version: torch's kernels work
            return None


def agrees(made: Normed, activation: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a kernel computes what torch does, for two widths."""
    tolerance = 4e-3 if dtype is torch.float16 else 3e-2
    for width in (48, 320):
        # Of sin and cos, so that no random number is drawn.
        inputs = torch.linspace(-9, 9, 5 * width).sin().mul(4).view(5, width)
        weight, bias = torch.linspace(-2, 2, width).cos(), torch.linspace(-1, 1, width)
        x, scale, shift = (tensor.to(device, dtype) for tensor in (inputs, weight, bias))

        norm = (width,), scale.float(), shift.float(), 1e-5
        expected = F.layer_norm(activation(x.float()), *norm)
        if not torch.allclose(made(x, scale, shift, 1e-5).float(), expected, tolerance, tolerance):
            return False
    return True


def compiled(kind: type[nn.Module]) -> Normed:
    """The kernel for a key of :data:`ACTIVATIONS`; Triton compiles it at the first call.

    Raises:
        ImportError: there is no Triton.
    """
    import triton

    from .normed_kernel import rows_kernel

    number = ACTIVATIONS[kind]

    def run(
        inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> torch.Tensor:
        width = inputs.shape[-1]
        rows = inputs.reshape(-1, width).contiguous()
        made = torch.empty_like(rows)
        block = triton.next_power_of_2(width)
        warps = min(16, max(1, block // 256))
        if len(rows):
            rows_kernel[(len(rows),)](
                rows, made, weight, bias, width, eps, ACT=number, BLOCK=block, num_warps=warps
            )
        return made.view(inputs.shape)

    return run
