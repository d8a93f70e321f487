"""LoRA files as other programs read them: names of tensors.

There are four layouts. ``kohya`` has the names of kohya's trainer, with whole matrices (``diff``)
where no low rank is asked for. AUTOMATIC1111 takes a bias (``diff_b``) only beside a ``diff``, so
that each has one of zeros. ``comfyui`` is the same without these zeros, which take much of the
file: for ComfyUI, Forge and SD.Next. ``a1111`` leaves them out, too, in a way that AUTOMATIC1111
and SD.Next understand. ``peft`` is for diffusers and peft.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import HypernetworkError
from ..files.safetensors_files import save_flat
from ..files.writing import replace
from .layers import Layer
from .low_rank import Factors

FORMATS = ("kohya", "comfyui", "a1111", "peft")
DTYPES = {"fp16": torch.float16, "fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Part:
    """What a LoRA holds for one attention module.

    Attributes:
        layer: where.
        key, value: for the weights of ``to_k`` and ``to_v``: whole, or as factors; ``None`` for
            nothing.
        bias: for the bias of ``to_out``; ``None`` for nothing.
        value_bias: the same bias before ``to_out``, which is what a bias of ``to_v`` would be.
    """

    layer: Layer
    key: torch.Tensor | Factors | None
    value: torch.Tensor | Factors | None
    bias: torch.Tensor | None = None
    value_bias: torch.Tensor | None = None


@dataclass(frozen=True)
class Narrow:
    """What a LoRA holds for one layer of any kind, linear or a 1x1 convolution.

    Attributes:
        path: in diffusers' UNet.
        original: the same in the original layout.
        up, down: the factors, ``(outer, rank)`` and ``(rank, inner)``.
        kernel: ``(1, 1)`` for a convolution, else empty.
    """

    path: str
    original: str
    up: torch.Tensor
    down: torch.Tensor
    kernel: tuple[int, ...] = ()


def named_tensors(
    parts: Iterable[Part | Narrow], layout: str, dtype: torch.dtype, family: str | None
) -> dict[str, torch.Tensor]:
    """Tensors by their names in one of :data:`FORMATS`.

    Args:
        dtype: of all numbers.
        family: of the base model, by which kohya's names differ.

    Raises:
        HypernetworkError: a number is too large for the type.
    """
    tensors: dict[str, torch.Tensor] = {}

    for part in parts:
        if isinstance(part, Narrow):
            tensors.update(_narrow(part, layout, dtype, family))
        elif layout == "peft":
            tensors.update(_peft(part, dtype))
        else:
            tensors.update(_kohya(part, layout, dtype, family))
    return tensors


def _narrow(
    part: Narrow, layout: str, dtype: torch.dtype, family: str | None
) -> dict[str, torch.Tensor]:
    up, down = (t.reshape(*t.shape, *part.kernel) for t in (part.up, part.down))
    if layout == "peft":
        name = f"unet.{part.path}"
        return {
            f"{name}.lora_A.weight": _cast(down, dtype, name),
            f"{name}.lora_B.weight": _cast(up, dtype, name),
        }
    return _kohya_factors(_kohya_name(part.path, part.original, family), up, down, dtype)


def _kohya_name(path: str, original: str, family: str | None) -> str:
    """Kohya's trainer names SDXL's modules by the original layout, the others' by diffusers'."""
    return f"lora_unet_{(original if family == 'SDXL' else path).replace('.', '_')}"


def _kohya(
    part: Part, layout: str, dtype: torch.dtype, family: str | None
) -> dict[str, torch.Tensor]:
    prefix = _kohya_name(part.layer.path, part.layer.original, family)
    found: dict[str, torch.Tensor] = {}
    for leaf, change in (("to_k", part.key), ("to_v", part.value)):
        name = f"{prefix}_{leaf}"
        if isinstance(change, Factors):
            found |= _kohya_factors(name, change.up, change.down, dtype)
        elif change is not None and layout == "a1111":
            # A1111 adds a `diff` in its own type, and so would round fp32 weights to fp16. The
            # product with one number in fp32 is in fp32.
            found[f"{name}.lokr_w1"] = torch.ones(1, 1)
            found[f"{name}.lokr_w2"] = _cast(change, dtype, name)
        elif change is not None:
            found[f"{name}.diff"] = _cast(change, dtype, name)

    if part.bias is not None:
        name = f"{prefix}_to_out_0"
        if layout == "a1111":  # one zero is added to all numbers, and in fp32 rounds none
            found[f"{name}.diff"] = torch.zeros(1, 1)
        elif layout == "kohya":
            found[f"{name}.diff"] = torch.zeros(part.layer.outer, part.layer.inner, dtype=dtype)
        else:
            up, down = torch.zeros(part.layer.outer, 1), torch.zeros(1, part.layer.inner)
            found |= _kohya_factors(name, up, down, dtype)
        found[f"{name}.diff_b"] = _cast(part.bias, dtype, name)
    return found


def _kohya_factors(
    name: str, up: torch.Tensor, down: torch.Tensor, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Alpha is the rank, which makes the scale 1."""
    return {
        f"{name}.lora_up.weight": _cast(up, dtype, name),
        f"{name}.lora_down.weight": _cast(down, dtype, name),
        f"{name}.alpha": torch.tensor(float(up.shape[1]), dtype=dtype),
    }


def _peft(part: Part, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Peft has a bias in all of a file's modules or in none; that of ``to_v`` needs no other
    module."""
    prefix, found = f"unet.{part.layer.path}", dict[str, torch.Tensor]()
    for leaf, change, bias in (
        ("to_k", part.key, None),
        ("to_v", part.value, part.value_bias),
    ):
        if change is None:
            continue

        # Zeros where there is none: all modules must have one, or none.
        name = f"{prefix}.{leaf}"
        up, down = _as_factors(change)
        found[f"{name}.lora_A.weight"] = _cast(down, dtype, name)
        found[f"{name}.lora_B.weight"] = _cast(up, dtype, name)
        bias = torch.zeros(up.shape[0]) if bias is None else bias
        found[f"{name}.lora_B.bias"] = _cast(bias, dtype, name)
    return found


def _as_factors(change: torch.Tensor | Factors) -> tuple[torch.Tensor, torch.Tensor]:
    """A whole matrix beside an identity is rounded only once."""
    if isinstance(change, Factors):
        return change.up, change.down
    outer, inner = change.shape
    if inner <= outer:
        return change, torch.eye(inner)
    return torch.eye(outer), change


def _cast(tensor: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    cast = tensor.detach().to("cpu", dtype).contiguous()
    if not cast.isfinite().all():
        raise HypernetworkError(
            f"{name}: its numbers don't fit the type {str(dtype).removeprefix('torch.')}: write "
            "it as fp32 or bf16 (--dtype), or check the network, which may be damaged"
        )
    return cast


def save_lora(path: Path, tensors: Mapping[str, torch.Tensor], found: dict[str, str]) -> None:
    """Write a LoRA atomically, with the hash that webuis know it by.

    Raises:
        FileWriteError: the system refuses; what was there is untouched.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    found = found | {"hypernetworks_tensors_sha256": digest.hexdigest()}
    replace(path, lambda temporary: save_flat(temporary, tensors, found))
