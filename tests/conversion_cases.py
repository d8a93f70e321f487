"""What the tests of conversion share: small checkpoints, networks, and a reading of LoRAs of its
own."""

from __future__ import annotations

from pathlib import Path

import torch
from laws.small_ldm import CHANNELS, CONTEXT, SmallUNet
from safetensors.torch import load_file, save_file

import hypernetworks as hn

PREFIX = "model.diffusion_model."
WIDTHS = (CONTEXT, *CHANNELS[:3])
LINEAR = hn.Structure((1, 2, 1))


def small_unet(seed: int = 0) -> SmallUNet:
    """The UNet, with random weights."""
    torch.manual_seed(seed)
    return SmallUNet().eval().requires_grad_(False)


def checkpoint(
    path: Path, unet: torch.nn.Module, dtype: torch.dtype = torch.float32, **more: torch.Tensor
) -> Path:
    """A file in the original layout with tensors of other parts around, of other types too."""
    torch.manual_seed(99)
    tensors = {f"{PREFIX}{name}": t.to(dtype).contiguous() for name, t in unet.state_dict().items()}
    tensors |= {
        "first_stage_model.decoder.conv_in.weight": torch.randn(4, 3),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "model_ema.diffusion_modelmiddle_block": torch.randn(5).half(),
        "control_model.input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight": torch.randn(8, 8),
        **more,
    }
    save_file(tensors, path, {"format": "pt", "note": "kept"})
    return path


def network(
    name: str,
    seed: int,
    structure: hn.Structure = LINEAR,
    widths: tuple[int, ...] = WIDTHS,
    std: float = 0.25,
) -> hn.Hypernetwork:
    """A network with random weights, biases too."""
    made = hn.Hypernetwork.create(name, structure, widths)
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        parameter.data.normal_(std=std, generator=generator)
    return made


def output(unet: torch.nn.Module) -> torch.Tensor:
    """What the UNet gives for fixed inputs."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(2, 4, 16, 16, generator=generator)
    context = torch.randn(2, 9, CONTEXT, generator=generator)
    with torch.no_grad():
        return unet(x, torch.tensor([3.0, 400.0]), context)  # type: ignore[no-any-return]


def share_of_effect(made: torch.Tensor, wanted: torch.Tensor, plain: torch.Tensor) -> float:
    """The error, as a share of what the networks change."""
    return float(
        (made.double() - wanted.double()).norm() / (wanted.double() - plain.double()).norm()
    )


def merged(unet: torch.nn.Module, lora: Path, weight: float, naming: str = "path") -> list[str]:
    """Add a LoRA in kohya's layout to the UNet in place, as A1111 does it; returns unused names.

    Args:
        naming: ``path``: diffusers' names, for SD1 and SD2; ``original``: for SDXL.
    """
    from hypernetworks.conversion.layers import find_layers

    tensors = load_file(lora)
    state = unet.state_dict()
    shapes = {f"{PREFIX}{name}": tuple(tensor.shape) for name, tensor in state.items()}
    for layer in find_layers(shapes):
        stored = layer.stored.removeprefix(PREFIX)
        for leaf in ("to_k", "to_v", "to_out.0"):
            name = f"lora_unet_{getattr(layer, naming)}.{leaf}".replace(".", "_")
            target = state[f"{stored}.{leaf}.weight"]
            diff, down = (
                tensors.pop(f"{name}.diff", None),
                tensors.pop(f"{name}.lora_down.weight", None),
            )
            bias = tensors.pop(f"{name}.diff_b", None)
            if down is not None:
                up, alpha = tensors.pop(f"{name}.lora_up.weight"), tensors.pop(f"{name}.alpha")
                diff = up.float() @ down.float() * float(alpha) / down.shape[0]
            if diff is not None:
                target += weight * diff
            if bias is not None:
                state[f"{stored}.{leaf}.bias"] += weight * bias
    return list(tensors)
