"""LoRA files as other programs read them: names of tensors and metadata.

There are three layouts. ``kohya`` has the names of kohya's trainer, with whole matrices (``diff``)
where no low rank is asked for. AUTOMATIC1111 takes a bias (``diff_b``) only beside a ``diff``, so
that each has one of zeros. ``comfyui`` is the same without these zeros, which take much of the
file: for ComfyUI, Forge and SD.Next. ``peft`` is for diffusers and peft.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

import hypernetworks

from ..errors import HypernetworkError
from ..files.safetensors_files import save_flat
from ..files.writing import replace
from .base import Base
from .layers import Layer
from .low_rank import Factors
from .weighted import Weighted

FORMATS = ("kohya", "comfyui", "peft")
DTYPES = {"fp16": torch.float16, "fp32": torch.float32, "bf16": torch.bfloat16}

_BASE_VERSION = {"SD1": "sd_v1", "SD2": "sd_v2", "SDXL": "sdxl_base_v1-0"}
_ARCHITECTURE = {
    "SD1": "stable-diffusion-v1",
    "SD2": "stable-diffusion-v2-768-v",
    "SDXL": "stable-diffusion-xl-v1-base",
}


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


def named_tensors(
    parts: Iterable[Part], layout: str, dtype: torch.dtype, family: str | None
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
        if layout == "peft":
            tensors.update(_peft(part, dtype))
        else:
            tensors.update(_kohya(part, dtype, family, zeros=layout == "kohya"))
    return tensors


def _kohya(
    part: Part, dtype: torch.dtype, family: str | None, *, zeros: bool
) -> dict[str, torch.Tensor]:
    # kohya's trainer names SDXL's modules by the original layout, the others' by diffusers'
    path = part.layer.original if family == "SDXL" else part.layer.path
    prefix, found = f"lora_unet_{path.replace('.', '_')}", dict[str, torch.Tensor]()
    for leaf, change in (("to_k", part.key), ("to_v", part.value)):
        name = f"{prefix}_{leaf}"
        if isinstance(change, Factors):
            found |= _kohya_factors(name, change.up, change.down, dtype)
        elif change is not None:
            found[f"{name}.diff"] = _cast(change, dtype, name)

    if part.bias is not None:
        name = f"{prefix}_to_out_0"
        if zeros:
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


def metadata(
    tensors: Mapping[str, torch.Tensor],
    layout: str,
    name: str,
    base: Base,
    networks: Iterable[Weighted],
    how: str,
) -> dict[str, str]:
    """What kohya's tools write, as far as it applies, and where the LoRA comes from.

    Args:
        name: of the LoRA.
        how: in words, how it was made.
    """
    ranks = [t.shape[1] for key, t in tensors.items() if key.endswith(("up.weight", "B.weight"))]
    largest = max(ranks, default=0)
    family = base.family
    origin = {
        "made_by": f"hypernetworks {hypernetworks.__version__}",
        "how": how,
        "base": base.name,
        "networks": [
            {
                "name": weighted.network.name,
                "multiplier": str(weighted.multiplier),
                "step": weighted.network.provenance.step,
                "checkpoint": weighted.network.provenance.checkpoint_name,
            }
            for weighted in networks
        ],
    }
    found = {
        "format": "pt",
        "ss_output_name": name,
        "ss_sd_model_name": base.path.name,
        "ss_base_model_version": _BASE_VERSION.get(family or "", "unknown"),
        "ss_v2": str(family == "SD2"),
        "ss_network_module": "networks.lora" if largest else "lycoris.kohya",
        "ss_network_dim": str(largest) if largest else "Dynamic",
        "ss_network_alpha": str(largest) if largest else "Dynamic",
        "ss_network_args": json.dumps({} if largest else {"algo": "full"}),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{_ARCHITECTURE.get(family or '', 'custom')}/lora",
        "modelspec.implementation": "diffusers"
        if layout == "peft"
        else "https://github.com/Stability-AI/generative-models",
        "modelspec.title": name,
        "modelspec.description": "A hypernetwork converted to a LoRA",
        "hypernetworks_origin": json.dumps(origin),
    }
    if layout == "peft":
        found["lora_adapter_metadata"] = json.dumps(_peft_config(tensors), sort_keys=True)
    return found


def _peft_config(tensors: Mapping[str, torch.Tensor]) -> dict[str, object]:
    """What diffusers writes itself; older ones get the scale of differing ranks wrong without
    it."""
    ranks = {
        key.removeprefix("unet.").removesuffix(".lora_B.weight"): tensor.shape[1]
        for key, tensor in tensors.items()
        if key.endswith(".lora_B.weight")
    }
    values = sorted(ranks.values())
    usual = max(values, key=values.count, default=1)
    others = {f"^{name}": rank for name, rank in ranks.items() if rank != usual}
    config = {
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
        "lora_bias": True,
        "use_dora": False,
    }
    return {f"unet.{key}": value for key, value in config.items()}


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
