"""Tensor names of the original (ldm) layout, translated into those of diffusers and transformers.

Each function takes one name without its component's prefix (``model.diffusion_model.`` and so on)
and gives the new one, or ``None`` for a tensor that the component has no use for. They know no
shapes; whether everything was found is for the reader to check.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch

_UNET_ENDS = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_MIDDLE = {"0": "mid_block.resnets.0.", "1": "mid_block.attentions.0.", "2": "mid_block.resnets.1."}


def unet_name(name: str, layers: int) -> str | None:
    """The name in a ``UNet2DConditionModel`` with ``layers`` layers per block.

    The original counts its input and output blocks through; ``layers + 1`` of them make one block
    here. The last input block of each only shrinks; the last output block of each also grows.
    """
    owner, _, leaf = name.rpartition(".")
    if owner in _UNET_ENDS:
        return f"{_UNET_ENDS[owner]}.{leaf}"
    if match := re.fullmatch(r"middle_block\.([012])\.(.+)", name):
        return _MIDDLE[match[1]] + _resnet(match[2])

    match = re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)", name)
    if match is None:
        return None

    side, number, part, rest = match[1], int(match[2]), match[3], match[4]
    block, layer = divmod(number - (side == "input"), layers + 1)
    where = f"{'down' if side == 'input' else 'up'}_blocks.{block}"
    if rest.startswith(("op.", "conv.")):
        return f"{where}.{'downsamplers' if side == 'input' else 'upsamplers'}.0.conv.{leaf}"

    return f"{where}.{'resnets' if part == '0' else 'attentions'}.{layer}.{_resnet(rest)}"


def _resnet(rest: str) -> str:
    owner, _, leaf = rest.rpartition(".")
    return f"{_RESNET[owner]}.{leaf}" if owner in _RESNET else rest


_VAE = (
    (r"\bdown\.(\d+)\.block\.", r"down_blocks.\1.resnets."),
    (r"\bdown\.(\d+)\.downsample\.", r"down_blocks.\1.downsamplers.0."),
    (r"\bup\.(\d+)\.block\.", r"up_blocks.\1.resnets."),
    (r"\bup\.(\d+)\.upsample\.", r"up_blocks.\1.upsamplers.0."),
    (r"\bmid\.block_1\.", "mid_block.resnets.0."),
    (r"\bmid\.block_2\.", "mid_block.resnets.1."),
    (r"\bmid\.attn_1\.norm\.", "mid_block.attentions.0.group_norm."),
    (r"\bmid\.attn_1\.proj_out\.", "mid_block.attentions.0.to_out.0."),
    (r"\bmid\.attn_1\.([qkv])\.", r"mid_block.attentions.0.to_\1."),
    (r"\bnin_shortcut\.", "conv_shortcut."),
    (r"^((?:en|de)coder)\.norm_out\.", r"\1.conv_norm_out."),
)


def vae_name(name: str, levels: int) -> str | None:
    """The name in an ``AutoencoderKL`` with ``levels`` blocks; the original counts the decoder's
    from the fine end.
    """
    if not name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")):
        return None
    for pattern, replacement in _VAE:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"(?<=\bup_blocks\.)\d+", lambda level: str(levels - 1 - int(level[0])), name)


_OPEN_CLIP = (
    (r"^token_embedding\.", "embeddings.token_embedding."),
    (r"^positional_embedding$", "embeddings.position_embedding.weight"),
    (r"^ln_final\.", "final_layer_norm."),
    (r"^transformer\.resblocks\.", "encoder.layers."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
)


def text_weights(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a CLIP text model in one of the original's, without a leading ``text_model.``.

    ``transformer.`` marks transformers' own layout (with or without ``text_model.``: merges of the
    first months lack it), ``model.`` that of OpenCLIP, which keeps queries, keys and values in one
    matrix and applies the projection from the other side.
    """
    if name.startswith("transformer."):
        yield name.removeprefix("transformer.").removeprefix("text_model."), tensor
    elif name == "model.text_projection":
        yield "text_projection.weight", tensor.T.contiguous()
    elif name.startswith("model."):
        name = name.removeprefix("model.")
        for pattern, replacement in _OPEN_CLIP:
            name = re.sub(pattern, replacement, name)
        if match := re.fullmatch(r"(.+)\.attn\.in_proj_(weight|bias)", name):
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                yield f"{match[1]}.self_attn.{letter}_proj.{match[2]}", part
        else:
            yield name, tensor
