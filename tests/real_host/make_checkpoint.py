"""A checkpoint of full shape with random weights, for webuis without a real one:
``python -m tests.real_host.make_checkpoint FAMILY OUT.safetensors``, with diffusers installed.

FAMILY is ``sd1``, ``sd2``, ``sdxl`` or ``vega`` (an SDXL of a quarter of the size, which the webuis
load as SDXL). The tensors are fp16, SDXL's UNet with ``--fp8`` float8_e4m3fn: 4.5 GB instead of 7.
They are drawn and written one by one, so that little memory is needed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, BinaryIO

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from original_layout import MODELS, original

CONFIGURATIONS = (
    Path(__file__).resolve().parents[2] / "hypernetworks" / "hosts" / "diffusers" / "checkpoints"
)
CHANGES: dict[str, dict[str, Any]] = {
    "vega": {"transformer_layers_per_block": [1, 1, 2], "mid_block_type": "UNetMidBlock2D"}
}
NAMES = {torch.float16: "F16", torch.float8_e4m3fn: "F8_E4M3", torch.int64: "I64"}
LAST_NORMS = ("ln_final.bias", "final_layer_norm.bias")
OFFSET = 0.02
"""Of what a text encoder answers. AUTOMATIC1111 divides by its mean, which would be 0 or nearly."""
SILU = 0.356
"""Mean square of the SiLU of normal noise, which both output convolutions get."""


def models(family: str) -> dict[str, Any]:
    """A family's models without memory for their weights."""
    import diffusers
    import transformers

    folder = CONFIGURATIONS / ("sdxl" if family == "vega" else family)
    index, found = json.loads((folder / "model_index.json").read_text("utf-8")), {}
    for part in MODELS[folder.name]:
        library, kind = index[part]
        config = json.loads((folder / part / "config.json").read_text("utf-8"))
        if part == "unet":
            config |= CHANGES.get(family, {})
        with torch.device("meta"):
            if library == "diffusers":
                found[part] = getattr(diffusers, kind).from_config(config)
            else:
                text_config = transformers.CLIPTextConfig.from_dict(config)
                found[part] = getattr(transformers, kind)(text_config)
    return found


def drawn(name: str, like: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Numbers that keep the size of what goes through; the outputs answer noise with noise."""
    if not like.is_floating_point():
        return torch.arange(like.numel()).reshape(like.shape)
    if like.ndim < 2:
        is_scale = name.endswith("weight") or "logit_scale" in name
        return torch.full(like.shape, OFFSET if name.endswith(LAST_NORMS) else float(is_scale))

    start = torch.randint(len(noise) // 2, ()).item()
    repeats = like.numel() // (len(noise) // 2) + 1
    values = noise[start : start + len(noise) // 2].repeat(repeats)[: like.numel()]
    scale = like[0].numel() ** -0.5
    if name.endswith("diffusion_model.out.2.weight"):
        scale *= SILU**-0.5
    elif name.endswith("decoder.conv_out.weight"):
        scale *= 0.45 * SILU**-0.5
    return (values * scale).reshape(like.shape)


def dtype_of(name: str, like: torch.Tensor, fp8: bool) -> torch.dtype:
    """As which it is stored."""
    if not like.is_floating_point():
        return torch.int64
    of_unet = name.startswith("model.diffusion_model.") and like.ndim > 1
    return torch.float8_e4m3fn if fp8 and of_unet else torch.float16


def write(tensors: dict[str, torch.Tensor], file: BinaryIO, fp8: bool) -> None:
    """A safetensors file: the length of its header, the header, the tensors' bytes."""
    header, end = {}, 0
    for name, like in tensors.items():
        dtype = dtype_of(name, like, fp8)
        start, end = end, end + like.numel() * dtype.itemsize
        shape = list(like.shape)
        header[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)

    noise = torch.randn(1 << 24)
    for name, like in tensors.items():
        values = drawn(name, like, noise).to(dtype_of(name, like, fp8))
        file.write(values.reshape(-1).view(torch.uint8).numpy().tobytes())


def main(arguments: list[str]) -> None:
    """Write one file; under another name until it is complete."""
    fp8 = "--fp8" in arguments
    family, out = (argument for argument in arguments if argument != "--fp8")
    torch.manual_seed(0)
    tensors = original("sdxl" if family == "vega" else family, models(family))
    half = Path(out).with_suffix(".half")
    with half.open("wb") as file:
        write(tensors, file, fp8)
    half.replace(out)
    print(f"{out}: {Path(out).stat().st_size / 1e9:.1f} GB, {len(tensors)} tensors")


if __name__ == "__main__":
    main(sys.argv[1:])
