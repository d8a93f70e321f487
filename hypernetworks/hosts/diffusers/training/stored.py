"""The weights of a frozen UNet in less memory: rounded to fp8, or on the CPU and sent to the device
layer by layer.

Torch's own layers would keep each weight that was sent or converted until the backward pass. Here
the backward pass, like the forward pass, asks for it again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.grad import conv2d_input

from ....training.settings import STORAGES

WHOLE, FP8, STREAMED = STORAGES
SMALLEST = 1 << 16
"""Numbers of a weight from which it is worth it. The UNet's first layer, by which hosts tell its
precision, has fewer.
"""
_LARGEST_FP8 = 448.0


@functools.cache
def has_fp8(device: torch.device) -> bool:
    """Whether a device converts to 8 bits and back: Apple's and DirectML's don't."""
    try:
        ones = torch.ones(2, device=device).to(torch.float8_e4m3fn).to(torch.float32)
        return bool((ones == 1).all())
    except (RuntimeError, TypeError, NotImplementedError):
        return False


class Fp8:
    """A weight in 8 bits per number (e4m3), each row with a power of two as its scale.

    Without scales, the usual weights of about 0.02 would have two or three significant bits.

    Args:
        weight: ``(out, …)``, of any floating type.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        rows = weight.detach().float().flatten(1)
        largest = rows.abs().amax(1).clamp_min(1e-30)
        exponent = torch.floor(torch.log2(_LARGEST_FP8 / largest)).clamp(-30, 30)
        shape = (-1, *[1] * (weight.dim() - 1))

        self.numbers = (weight.float() * exponent.exp2().view(shape)).to(torch.float8_e4m3fn)
        self.scale = (-exponent).exp2().view(shape).to(weight.dtype)

    def decoded(self) -> torch.Tensor:
        """The rounded weight, in its own type; a new tensor."""
        return self.numbers.to(self.scale.dtype).mul_(self.scale)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self.numbers.numel() + self.scale.numel() * self.scale.element_size()


class Remote:
    """A weight on the CPU, in memory from which a card can copy by itself where there is some.

    Args:
        weight: ``(out, …)``.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self._device = weight.device
        here = weight.detach().to("cpu")
        self.weight = _pinned(here) if weight.device.type == "cuda" else here

    def decoded(self) -> torch.Tensor:
        """The weight on its device, exactly."""
        return self.weight.to(self._device, non_blocking=True)


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    try:
        return tensor.pin_memory()
    except RuntimeError:  # the system gives no more of it: slower, but right
        return tensor


class _Product(torch.autograd.Function):
    """A frozen linear layer: keeps nothing for the backward pass but where the weight is."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, inputs: torch.Tensor, weight: Callable[[], torch.Tensor], bias: Any
    ) -> torch.Tensor:
        ctx.weight = weight
        return F.linear(inputs, weight(), bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        return gradient @ ctx.weight(), None, None


class _Convolution(torch.autograd.Function):
    """The same for a convolution."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        inputs: torch.Tensor,
        weight: Callable[[], torch.Tensor],
        bias: Any,
        how: tuple[Any, ...],
    ) -> torch.Tensor:
        ctx.weight, ctx.shape, ctx.how = weight, inputs.shape, how
        return F.conv2d(inputs, weight(), bias, *how)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        through: Any = conv2d_input
        made = through(ctx.shape, ctx.weight(), gradient, *ctx.how)
        return made, None, None, None


def _forward(layer: nn.Module, kept: Fp8 | Remote, dtype: torch.dtype) -> Callable[..., Any]:
    """What stands in for the layer's forward; computes in ``dtype``, as autocast would."""
    product: Any = _Product.apply
    convolution: Any = _Convolution.apply
    if isinstance(layer, nn.Conv2d):
        how = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return lambda x: convolution(x.to(dtype), kept.decoded, layer.bias, how)
    return lambda x, *_, **__: product(x.to(dtype), kept.decoded, layer.bias)


def large_layers(unet: nn.Module) -> list[nn.Module]:
    """Layers whose weights can be stored in another way."""
    return [
        module
        for module in unet.modules()
        if type(module).__name__ in ("Linear", "Conv2d", "LoRACompatibleLinear")
        and isinstance(module, (nn.Linear, nn.Conv2d))
        and module.weight.numel() >= SMALLEST
        and getattr(module, "padding_mode", "zeros") == "zeros"
        and "forward" not in vars(module)
    ]


@contextmanager
def stored(unet: nn.Module, storage: str, *, keep: bool = True) -> Iterator[None]:
    """The large weights of a frozen UNet are stored like this inside; afterwards as they were.

    Args:
        storage: one of :data:`STORAGES`.
        keep: whether the weights must come back exactly. Without, what fp8 has left of them comes
            back, and no copy is needed on the CPU meanwhile.
    """
    if storage == WHOLE:
        yield
        return

    before: list[tuple[nn.Module, Fp8 | Remote, Remote | None]] = []
    try:
        for layer in large_layers(unet):
            weight: nn.Parameter = layer.weight  # type: ignore[assignment]
            kept = Fp8(weight) if storage == FP8 else Remote(weight)
            original = Remote(weight) if keep and storage == FP8 else None
            before.append((layer, kept, original))
            vars(layer)["forward"] = _forward(layer, kept, weight.dtype)
            # A shape for whoever asks, and no memory. Whatever computes with it gets NaN.
            weight.data = weight.data.new_full((1,), float("nan")).expand(weight.shape)
        yield
    finally:
        for layer, kept, original in before:
            vars(layer).pop("forward", None)
            layer.weight.data = (original or kept).decoded()  # type: ignore[union-attr]
