"""Dense products with an activation, computed in the fastest way on this machine.

On a CPU in fp32, ``F.linear`` uses MKL, if torch was built with it. MKL doesn't use AVX-512 on
processors of other makers than its own. There, oneDNN is about twice as fast, and it computes bias
and activation together with the product. Both compute in full fp32. On CUDA, relu after a product
costs a pass over the widest tensor of a network, and cuBLAS computes it at the end of the product.
Everywhere else, and if the fused operator is missing or wrong on this machine, ``F.linear`` is
used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from .tensors import is_ordinary
from .tracing import is_compiling

FUSING = ("cuda", "meta")
"""Devices whose products may end in relu; on the meta device, where kernels are counted, as on
CUDA.
"""

Activation = Callable[[torch.Tensor], torch.Tensor]

FUSED: dict[type[nn.Module], tuple[str, tuple[float, ...], str]] = {
    nn.ReLU: ("relu", (), ""),
    nn.Tanh: ("tanh", (), ""),
    nn.Sigmoid: ("sigmoid", (), ""),
    nn.GELU: ("gelu", (), "none"),
    nn.SiLU: ("swish", (), ""),
    nn.Hardswish: ("hardswish", (), ""),
    nn.LeakyReLU: ("leaky_relu", (0.01,), ""),
    nn.ReLU6: ("hardtanh", (0.0, 6.0), ""),
    nn.Hardtanh: ("hardtanh", (-1.0, 1.0), ""),
}
"""Activations that oneDNN can compute inside a product, with the default arguments that
hypernetworks use.
"""


def linear(
    inputs: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activation: nn.Module | None = None,
) -> torch.Tensor:
    """``activation(inputs @ weight.T + bias)``, differentiable wherever gradients are on.

    Args:
        inputs: ``(…, inner)``, of the weight's dtype and device.
        weight: ``(outer, inner)``.
        bias: ``(outer,)`` or ``None``.
        activation: applied to the product; ``None`` for none.
    """
    fused = FUSED.get(type(activation)) if activation is not None else ("none", (), "")
    if fused is not None and _is_for_onednn(inputs, weight):
        name, scalars, algorithm = fused
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, weight, bias, name, list(scalars), algorithm
        )
        return product

    if type(activation) is nn.ReLU and bias is not None and _is_for_cublas(inputs, weight):
        is_flat = inputs.ndim == 2
        rows = inputs if is_flat else inputs.reshape(-1, inputs.shape[-1])
        made: torch.Tensor = torch.ops.aten._addmm_activation(bias, rows, weight.t())
        return made if is_flat else made.view(*inputs.shape[:-1], -1)

    product = F.linear(inputs, weight, bias)
    return product if activation is None else activation(product)


def _is_for_cublas(inputs: torch.Tensor, weight: torch.Tensor) -> bool:
    """Of relu and gelu, which cuBLAS has, hypernetworks' gelu is another: the exact one."""
    device, dtype = inputs.device, inputs.dtype
    return bool(
        device.type in FUSING
        and device == weight.device
        and dtype is weight.dtype
        and dtype in (torch.float16, torch.bfloat16)
        and not torch.is_grad_enabled()
        and is_ordinary(inputs, weight)
        and not is_compiling()  # a compiler fuses by itself
        and inputs.numel() > 0
        and (device.type != "cuda" or not torch.cuda.is_current_stream_capturing())
        and cublas_works(device)
    )


@functools.cache
def cublas_works(device: torch.device) -> bool:
    """Whether the operator exists, and computes relu there: asked once for a device, at first use.

    It is one that torch keeps for its own encoder layers, so it may be missing, or another one day.
    """
    operator = getattr(torch.ops.aten, "_addmm_activation", None)
    if operator is None or device.type == "meta":
        return operator is not None
    with torch.inference_mode(False), torch.no_grad():
        try:
            inputs, weight = (
                torch.linspace(-3, 3, 8 * 16).view(8, 16).sin().to(device, torch.float16),
                torch.linspace(-2, 2, 16 * 16).view(16, 16).cos().to(device, torch.float16),
            )
            bias = torch.linspace(-1, 1, 16).to(device, torch.float16)
            plain = F.linear(inputs, weight, bias).relu()
            return torch.allclose(operator(bias, inputs, weight.t()), plain, rtol=1e-2, atol=1e-2)
        except Exception:  # as above
            return False


def _is_for_onednn(inputs: torch.Tensor, weight: torch.Tensor) -> bool:
    return bool(
        inputs.dtype is torch.float32
        and inputs.device.type == "cpu"
        and not torch.is_grad_enabled()
        and is_ordinary(inputs, weight)
        and not is_compiling()  # a compiler fuses by itself, and may not know this operator
        and inputs.numel() > 0
        and weight.dtype is torch.float32
        and weight.device.type == "cpu"
        and torch.backends.mkldnn.enabled
        and onednn_works()
    )


@functools.cache
def onednn_works() -> bool:
    """Whether the fused operator exists here and computes correctly; tested once per process.

    Torch has it for its own compiler and promises nothing about it, so it may be missing or change.
    """
    # The inputs come from sin and cos, so that the test draws no random number.
    with torch.inference_mode(False), torch.no_grad():
        try:
            inputs = torch.linspace(-3, 3, 5 * 16).view(5, 16).sin()
            weight, bias = (
                torch.linspace(-2, 2, 24 * 16).view(24, 16).cos(),
                torch.linspace(-1, 1, 24),
            )
            plain = F.linear(inputs, weight, bias)
            for kind, (name, scalars, algorithm) in [
                (nn.Identity, ("none", (), "")),
                *FUSED.items(),
            ]:
                fused = torch.ops.mkldnn._linear_pointwise(
                    inputs, weight, bias, name, list(scalars), algorithm
                )
                if not torch.allclose(fused, kind()(plain), rtol=1e-5, atol=1e-5):
                    return False
        except Exception:  # of any kind, from any torch on any processor: F.linear works
            return False

    return True
