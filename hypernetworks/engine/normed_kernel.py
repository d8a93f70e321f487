"""The kernel of :mod:`.normed`. Only that module imports this one, where there is Triton."""

from __future__ import annotations

import triton
from triton import language as tl

RELU, HARDSWISH, SILU, GELU, LEAKY = (tl.constexpr(number) for number in range(1, 6))
"""As in :data:`.normed.ACTIVATIONS`."""


@triton.jit  # type: ignore[untyped-decorator]
def rows_kernel(  # type: ignore[no-untyped-def] # Triton reads annotations as its own types
    inputs,
    made,
    weight,
    bias,
    width,
    eps,
    ACT: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    """One program for each row, which is read once, written once, and computed in fp32."""
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    # In 64 bits: a large image has more numbers than 32 bits can count.
    begin = tl.program_id(0).to(tl.int64) * width
    value = tl.load(inputs + begin + columns, mask=inside, other=0.0).to(tl.float32)

    if ACT == RELU:
        value = tl.maximum(value, 0.0)
    elif ACT == HARDSWISH:
        value = value * tl.minimum(tl.maximum(value + 3.0, 0.0), 6.0) / 6.0
    elif ACT == SILU:
        value = value / (1.0 + tl.exp(-value))
    elif ACT == GELU:
        value = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
    elif ACT == LEAKY:
        value = tl.where(value > 0.0, value, value * 0.01)

    mean = tl.sum(tl.where(inside, value, 0.0), axis=0) / width
    centred = tl.where(inside, value - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / width
    scale = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    result = centred / tl.sqrt(variance + eps) * scale + shift
    tl.store(made + begin + columns, result.to(made.dtype.element_ty), mask=inside)
