"""What a LoRA's file says about itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import torch

import hypernetworks

from .base import Base
from .lora_scales import SETTINGS
from .weighted import Weighted

_BASE_VERSION = {"SD1": "sd_v1", "SD2": "sd_v2", "SDXL": "sdxl_base_v1-0"}
_ARCHITECTURE = {
    "SD1": "stable-diffusion-v1",
    "SD2": "stable-diffusion-v2-768-v",
    "SDXL": "stable-diffusion-xl-v1-base",
}


def metadata(
    tensors: Mapping[str, torch.Tensor],
    layout: str,
    name: str,
    base: Base,
    networks: Iterable[Weighted],
    how: str,
    fit: Mapping[str, object] | None = None,
) -> dict[str, str]:
    """What kohya's tools write, as far as it applies, and where the LoRA comes from.

    Args:
        name: of the LoRA.
        how: in words, how it was made.
        fit: the same in figures, where it was fitted.
    """
    # webuis show one number, though ranks may differ from layer to layer
    ranks = [t.shape[1] for key, t in tensors.items() if key.endswith(("up.weight", "B.weight"))]
    largest = max(ranks, default=0)
    family = base.family

    origin = _origin(base, networks, how, fit)

    found = {
        "format": "pt",
        "ss_output_name": name,
        "ss_sd_model_name": base.path.name if base.path.is_file() else base.name,
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
        found[SETTINGS] = json.dumps(_peft_config(tensors), sort_keys=True)
    return found


def _origin(
    base: Base, networks: Iterable[Weighted], how: str, fit: Mapping[str, object] | None
) -> dict[str, object]:
    """Where the LoRA comes from."""
    origin: dict[str, object] = {
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

    if fit is not None:
        origin["fit"] = dict(fit)
    return origin


def _peft_config(tensors: Mapping[str, torch.Tensor]) -> dict[str, object]:
    """What diffusers writes itself; older ones get the scale of differing ranks wrong without
    it."""
    ranks = {
        key.removeprefix("unet.").removesuffix(".lora_B.weight"): tensor.shape[1]
        for key, tensor in tensors.items()
        if key.endswith(".lora_B.weight")
    }

    values = sorted(ranks.values())
    # peft wants one rank for all, and a list of exceptions
    usual = max(values, key=values.count, default=1)
    others = {f"^{name}": rank for name, rank in ranks.items() if rank != usual}

    config = {
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
        "lora_bias": any(name.endswith(".lora_B.bias") for name in tensors),
        "use_dora": False,
    }
    return {f"unet.{key}": value for key, value in config.items()}
