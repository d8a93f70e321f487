"""The original (ldm) layout of SD1, SD2 and SDXL checkpoints, made from models of diffusers and
transformers by tables of the tests' own: the other way round than the project reads it.
"""

from __future__ import annotations

import re
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]

MODELS = {
    "sd1": ("unet", "vae", "text_encoder"),
    "sd2": ("unet", "vae", "text_encoder"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2"),
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OPEN_CLIP = {
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "self_attn.out_proj": "attn.out_proj",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def original_unet(name: str, layers: int, crossing: set[int]) -> str:
    """The original name; ``crossing`` are the up blocks with attention, whose upsampler is the
    third part."""
    ends = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.resnets.1": "middle_block.2",
    }
    per_block = layers + 1
    for block in range(4):
        ends[f"down_blocks.{block}.downsamplers.0.conv"] = (
            f"input_blocks.{(block + 1) * per_block}.0.op"
        )
        third = 2 if block in crossing else 1
        ends[f"up_blocks.{block}.upsamplers.0.conv"] = (
            f"output_blocks.{block * per_block + layers}.{third}.conv"
        )
        for layer in range(per_block):
            for part, kind in enumerate(("resnets", "attentions")):
                inner = f"{block}.{kind}.{layer}"
                ends[f"down_blocks.{inner}"] = (
                    f"input_blocks.{1 + block * per_block + layer}.{part}"
                )
                ends[f"up_blocks.{inner}"] = f"output_blocks.{block * per_block + layer}.{part}"
    start = max((end for end in ends if name.startswith(end + ".")), key=len)
    rest = name.removeprefix(start)
    if ".resnets." in start + ".":
        for new, old in RESNET.items():
            rest = rest.replace(f".{new}.", f".{old}.")
    return f"model.diffusion_model.{ends[start]}{rest}"


def original_vae(name: str, levels: int) -> str:
    name = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}", name)
    name = name.replace("down_blocks.", "down.").replace(".conv_shortcut", ".nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = (
        name.replace("mid_block.attentions.0", "mid.attn_1")
        .replace(".group_norm", ".norm")
        .replace(".to_out.0", ".proj_out")
    )
    name = re.sub(r"\.to_([qkv])\.", r".\1.", name).replace("conv_norm_out", "norm_out")
    name = (
        name.replace(".resnets.", ".block.")
        .replace(".downsamplers.0.", ".downsample.")
        .replace(".upsamplers.0.", ".upsample.")
    )
    return f"first_stage_model.{name}"


def open_clip(tensors: Tensors, prefix: str) -> Tensors:
    """A text model as OpenCLIP stores it, with the last layer and the scale that nobody uses."""
    result, queries = {}, {}
    for name, tensor in tensors.items():
        name = name.removeprefix("text_model.")
        if match := re.fullmatch(
            r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", name
        ):
            queries[match.groups()] = tensor
            continue
        if name == "text_projection.weight":
            name, tensor = "text_projection", tensor.T.contiguous()
        for new, old in OPEN_CLIP.items():
            name = name.replace(new, old)
        result[prefix + name] = tensor
    for layer, _, kind in {key for key in queries if key[1] == "q"}:
        whole = torch.cat([queries[layer, letter, kind] for letter in "qkv"])
        result[f"{prefix}transformer.resblocks.{layer}.attn.in_proj_{kind}"] = whole
    return result


def original(family: str, models: dict[str, Any]) -> Tensors:
    """A whole checkpoint in the original layout."""
    config = models["unet"].config
    crossing = {i for i, kind in enumerate(config.up_block_types) if "CrossAttn" in kind}
    tensors = {
        original_unet(name, config.layers_per_block, crossing): tensor
        for name, tensor in models["unet"].state_dict().items()
    }
    for name, tensor in models["vae"].state_dict().items():
        flat = ".attentions." in name and tensor.ndim == 2  # a 1x1 convolution in the original
        tensors[original_vae(name, len(models["vae"].config.block_out_channels))] = (
            tensor[..., None, None] if flat else tensor
        )
    texts = {part: models[part].state_dict() for part in MODELS[family] if part.startswith("text")}
    if family == "sd2":
        tensors |= open_clip(texts["text_encoder"], "cond_stage_model.model.")
    else:
        start = (
            "cond_stage_model.transformer"
            if family == "sd1"
            else "conditioner.embedders.0.transformer"
        )
        for name, tensor in texts["text_encoder"].items():
            tensors[f"{start}.text_model.{name.removeprefix('text_model.')}"] = tensor
        tensors[f"{start}.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    if family == "sdxl":
        tensors |= open_clip(texts["text_encoder_2"], "conditioner.embedders.1.model.")
        tensors["conditioner.embedders.1.model.logit_scale"] = torch.tensor(4.6)
    return tensors
