"""In which precision a frozen UNet computes, and how its weights get there and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def in_fp32(vae: Any) -> Iterator[None]:
    """An autoencoder in fp32 inside."""
    before = vae.dtype
    if before != torch.float32:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if before != torch.float32:
            vae.to(before)


@contextmanager
def computed_in(
    unet: torch.nn.Module, dtype: torch.dtype, *, keep: bool = True, aside: bool = False
) -> Iterator[None]:
    """A UNet whose numbers are of this type, whatever it is given; its prediction is of the type of
    its sample.

    Autocast would convert frozen weights anew in every call, and can't make half precision more
    precise. Afterwards the numbers are what they were, or, without ``keep``, what the other type
    has left of them. With ``aside``, what is kept waits on the CPU.
    """
    before = next(unet.parameters()).dtype
    if before == dtype:
        yield
        return

    given = [dtype]

    def into(
        module: object, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        given[0] = (inputs[0] if inputs else named["sample"]).dtype
        return _cast(inputs, dtype), _cast(named, dtype)

    def out(module: object, inputs: object, output: Any) -> Any:
        if isinstance(output, tuple):
            return _cast(output, given[0])
        output.sample = output.sample.to(given[0])
        return output

    parameters = [p for p in unet.parameters() if p.is_floating_point()]
    with _converted(parameters, lambda data: data.to(dtype), keep=keep, aside=aside):
        hooks = [
            unet.register_forward_pre_hook(into, with_kwargs=True),
            unet.register_forward_hook(out),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def _converted(
    parameters: Sequence[torch.nn.Parameter],
    convert: Callable[[torch.Tensor], torch.Tensor],
    *,
    keep: bool,
    aside: bool = False,
) -> Iterator[None]:
    """Parameters hold converted values inside; afterwards the originals, or, without ``keep``, the
    converted ones.
    """

    def original(data: torch.Tensor) -> torch.Tensor | None:
        return None if not keep else data.to("cpu") if aside else data

    before = [(p, p.dtype, original(p.data)) for p in parameters]
    try:
        for parameter in parameters:
            parameter.data = convert(parameter.data)
        yield
    finally:
        for parameter, dtype, data in before:
            if data is None:
                parameter.data = parameter.data.to(dtype).contiguous()
            else:
                parameter.data = data.to(parameter.device)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating-point tensors in it, in another type."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    return tuple(_cast(item, dtype) for item in value) if isinstance(value, tuple) else value


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies in bf16 itself, so that it is faster and not just
    smaller.
    """
    questions = (
        "_is_avx512_bf16_supported",
        "_is_amx_tile_supported",
    )  # as torch's own compiler asks
    return any(bool(getattr(torch.cpu, question, bool)()) for question in questions)


@contextmanager
def quick_on_cpu(unet: torch.nn.Module, precision: str, *, keep: bool = True) -> Iterator[bool]:
    """On the CPU: convolutions with channels last, and the weights of products in bf16 where that
    is the precision.

    Autocast alone would convert frozen weights anew in every call. Norms stay fp32. Afterwards the
    weights are the same objects with the same numbers, or, without ``keep``, what bf16 has left of
    them.

    Yields:
        Whether anything was converted, so that autocast has to be on for every call.
    """
    layers = [m for m in unet.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
    parameters = [p for layer in layers for p in layer.parameters(recurse=False)]
    if any(p.device.type != "cpu" or p.dtype != torch.float32 for p in parameters):
        yield False
        return
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def convert(data: torch.Tensor) -> torch.Tensor:
        return data.to(
            dtype, memory_format=torch.channels_last if data.dim() == 4 else torch.preserve_format
        )

    with _converted(parameters, convert, keep=keep):
        yield dtype != torch.float32
