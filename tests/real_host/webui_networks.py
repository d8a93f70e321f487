"""The hypernetwork and LoRA files that the real webuis are tested with, made from random
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import hypernetworks as hn
from hypernetworks.engine.network import Provenance

SD1 = (320, 640, 768, 1280)
SD2 = (320, 640, 1024, 1280)
SDXL = (640, 1280, 2048)
SMALL = (1, 0.25, 1)
AWKWARD = ("with spaces", "brackets [x] (y)", 'it\'s & "quoted"', "ink 🎨", "a=b")
"""Stems that have broken cards and prompts before."""
PARITY = ("linear", "relu", "swish", "dropout")
"""The structures whose pictures must equal the built-in's."""


def create(
    name: str,
    layers: Sequence[float] = SMALL,
    activation: str = "linear",
    *,
    seed: int = 0,
    widths: Sequence[int] = SD1,
    strength: float = 1.0,
    **more: Any,
) -> hn.Hypernetwork:
    """A network whose addition is about as large as the context itself, times ``strength``."""
    generator = torch.Generator().manual_seed(seed)
    dropout = more.pop("dropout", (0.0,) * len(layers))
    structure = hn.Structure(tuple(layers), activation, dropout=dropout, **more)
    network = hn.Hypernetwork.create(name, structure, widths)
    for pair in network.pairs.values():
        for mlp in pair:
            linears = [module for module in mlp.linear if isinstance(module, nn.Linear)]
            for layer in linears:
                scale = strength if layer is linears[-1] else 1.0
                layer.weight.copy_(
                    torch.randn(layer.weight.shape, generator=generator)
                    * scale
                    / layer.in_features**0.5
                )
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator) * 0.1 * scale)
    network.provenance = Provenance(
        name=name, step=1000 + seed, checkpoint_hash="fe4efff1e1", checkpoint_name="model"
    )
    return network


def write_all(folder: Path) -> None:
    """Every structure, every awkward name, an ambiguous stem, another family, a side-car."""
    hn.write(create("linear", (1, 2, 1), seed=1), folder / "linear.pt")
    hn.write(create("relu", (1, 2, 1), "relu", seed=2, layer_norm=True), folder / "relu.pt")
    hn.write(create("swish", (1, 2, 1), "swish", seed=3), folder / "swish.pt")
    dropout = (0.0, 0.3, 0.3, 0.0)
    deep = create("dropout", (1, 1.5, 1, 1), "relu", seed=4, activate_output=False, dropout=dropout)
    hn.write(deep, folder / "dropout.pt")
    hn.write(create("small", seed=5), folder / "small.pt")
    hn.write(create("other", activation="tanh", seed=6), folder / "other.pt")
    hn.write(create("safe", activation="relu", seed=7), folder / "safe.safetensors")
    hn.write(create("for sdxl", seed=8, widths=SDXL), folder / "for sdxl.pt")
    hn.write(create("for sd2", seed=10, widths=SD2), folder / "for sd2.pt")
    steps = create("many steps", seed=9)
    steps.provenance = replace(steps.provenance, step=123_456_789)
    hn.write(steps, folder / "many steps.pt")
    for number, name in enumerate(AWKWARD):
        hn.write(create(name, seed=20 + number), folder / f"{name}.pt")
    for number, sub in enumerate(("one", "two")):
        (folder / sub).mkdir()
        hn.write(create("twin", seed=30 + number), folder / sub / "twin.pt")
    (folder / "small.json").write_text(
        '{"preferred weight": 0.6, "activation text": "a small trigger"}', "utf-8"
    )


def content(path: Path) -> dict[Any, Any]:
    """What a ``.pt`` holds; what a ``.safetensors`` holds in the same form."""
    if path.suffix == ".pt":
        loaded: dict[Any, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded
    network = hn.read(path)
    structure = network.structure
    return {dim: (k.state_dict(), v.state_dict()) for dim, (k, v) in network.pairs.items()} | {
        "layer_structure": list(structure.layer_structure),
        "activation_func": structure.activation,
        "activate_output": structure.activate_output,
        "is_layer_norm": structure.layer_norm,
        "dropout_structure": list(structure.dropout),
    }


def write_lora(path: Path, rank: int = 4, strength: float = 0.5) -> None:
    """A LoRA in kohya's names on the attention of every block of an SD1 UNet, keys and values
    included."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(7)
    blocks = [
        (f"down_blocks_{b}_attentions_{a}", w)
        for b, w in enumerate((320, 640, 1280))
        for a in (0, 1)
    ]
    blocks += [("mid_block_attentions_0", 1280)]
    blocks += [
        (f"up_blocks_{b}_attentions_{a}", w)
        for b, w in ((1, 1280), (2, 640), (3, 320))
        for a in (0, 1, 2)
    ]
    tensors = {}
    for block, width in blocks:
        for attention, context in (("attn1", width), ("attn2", 768)):
            for projection, inner in (("to_q", width), ("to_k", context), ("to_v", context)):
                key = f"lora_unet_{block}_transformer_blocks_0_{attention}_{projection}"
                tensors[f"{key}.lora_down.weight"] = (
                    torch.randn(rank, inner, generator=generator) / inner**0.5
                )
                tensors[f"{key}.lora_up.weight"] = (
                    torch.randn(width, rank, generator=generator) * strength
                )
                tensors[f"{key}.alpha"] = torch.tensor(float(rank))
    save_file(tensors, path, {"ss_base_model_version": "sd_v1-5"})


def write_controlnet(path: Path) -> None:
    """Part of a ControlNet for SD1: the layers that are zero in a new one and those that tell its
    shape. sd-webui-controlnet draws the others at random.
    """
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(8)
    widths = (320, 320, 320, 320, 640, 640, 640, *(1280,) * 5)
    shapes = {f"zero_convs.{n}.0.weight": (w, w, 1, 1) for n, w in enumerate(widths)}
    shapes["middle_block_out.0.weight"] = shapes["middle_block.1.proj_out.weight"] = (1280,) * 2
    shapes |= {f"input_blocks.{n}.1.proj_out.weight": (widths[n],) * 2 for n in (1, 2, 4, 5, 7, 8)}
    shapes = {name: (*shape, 1, 1)[:4] for name, shape in shapes.items()}
    shapes |= {
        "input_hint_block.0.weight": (16, 3, 3, 3),
        "input_hint_block.14.weight": (320, 256, 3, 3),
        "input_blocks.5.1.transformer_blocks.0.attn2.to_k.weight": (640, 768),
    }

    tensors = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        tensors[name] = (values / values[0].numel() ** 0.5).half()
    save_file(tensors, path)
