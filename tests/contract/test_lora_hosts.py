"""LoRAs that we write, applied by the LoRA code of AUTOMATIC1111, Forge, SD.Next and ComfyUI.

``HYPERNETWORKS_WEBUI_SOURCES`` names a folder with their sources; what isn't there is skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conversion_cases import PREFIX, network
from safetensors.torch import load_file, save_file

import hypernetworks as hn
from hypernetworks.conversion import Base, Weighted, to_lora

SOURCES = Path(os.environ.get("HYPERNETWORKS_WEBUI_SOURCES", ""))
MARKS = {
    "a1111": "extensions-builtin/Lora/networks.py",
    "forge": "backend/patcher/lora.py",
    "sdnext": "modules/lora/lora_load.py",
    "comfyui": "comfy/lora.py",
}
TEXT_WIDTHS = {"sd1": 768, "sd2": 1024, "sdxl": 2048}
CHANNELS = tuple(int(c) for c in os.environ.get("HYPERNETWORKS_CHANNELS", "32,64").split(","))
"""Of the layers that are tried; the real ones are 320,640,1280."""
PLACES = ("input_blocks.4.1", "middle_block.1", "output_blocks.5.1")
HEADS = 4


def make_base(path: Path, text_width: int, dtype: torch.dtype) -> None:
    """The attention of three blocks, in the original layout."""
    generator, tensors = torch.Generator().manual_seed(3), dict[str, torch.Tensor]()
    for place, channels in zip(PLACES, CHANNELS * len(PLACES), strict=False):
        for module, width in (("attn1", channels), ("attn2", text_width)):
            stored = f"{PREFIX}{place}.transformer_blocks.0.{module}"
            for leaf, inner in (("q", channels), ("k", width), ("v", width), ("out.0", channels)):
                weight = torch.randn(channels, inner, generator=generator) * inner**-0.5
                tensors[f"{stored}.to_{leaf}.weight"] = weight.to(dtype)
            tensors[f"{stored}.to_out.0.bias"] = torch.randn(channels, generator=generator).to(
                dtype
            )
    save_file(tensors, path)


def attended(
    base: Path, weights: Path, networks: list[tuple[hn.Hypernetwork, float]]
) -> torch.Tensor:
    """The outputs of all attention modules, in fp32, one after the other."""
    tensors, outputs = load_file(weights), []
    with Base(base) as opened:
        layers = opened.layers
    for layer in layers:
        generator = torch.Generator().manual_seed(5)
        x = torch.randn(1, 40, layer.inner, generator=generator)
        context = (
            x if layer.kind == "self" else torch.randn(1, 20, layer.width, generator=generator)
        )
        key = value = context
        for made, multiplier in networks:
            pair = made.pairs[layer.width]
            with torch.no_grad():
                key, value = key + multiplier * pair[0](key), value + multiplier * pair[1](value)
        q, k, v = (
            F.linear(t, tensors[f"{layer.stored}.to_{leaf}.weight"].float())
            .unflatten(-1, (HEADS, -1))
            .transpose(1, 2)
            for leaf, t in (("q", x), ("k", key), ("v", value))
        )
        heads = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out, bias = (
            tensors[f"{layer.stored}.to_out.0.{leaf}"].float() for leaf in ("weight", "bias")
        )
        outputs.append(F.linear(heads, out, bias).flatten())
    return torch.cat(outputs).double()


def run(host: str, folder: Path, multiplier: float) -> Path:
    """The weights that a program makes of the LoRA in the folder."""
    script = Path(__file__).with_name("lora_hosts.py")
    done = subprocess.run(
        [sys.executable, str(script), host, str(SOURCES), str(folder), str(multiplier)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "MISMATCH" not in done.stdout + done.stderr
    assert "unused" not in done.stdout, done.stdout
    return folder / f"{host}{multiplier}.safetensors"


def error(
    host: str,
    folder: Path,
    family: str,
    layout: str = "kohya",
    dtype: str = "fp32",
    multiplier: float = 1.0,
    base_dtype: torch.dtype = torch.float32,
) -> float:
    """Of what the program makes, as a share of the network's effect."""
    if not (SOURCES / host / MARKS[host]).is_file():
        pytest.skip(f"HYPERNETWORKS_WEBUI_SOURCES has no {host}")
    base, width = folder / "base.safetensors", TEXT_WIDTHS[family]
    make_base(base, width, base_dtype)
    style = network("style", 1, widths=(width, *CHANNELS), std=0.3 * max(CHANNELS) ** -0.5)
    with Base(base) as opened:
        to_lora(opened, [Weighted(style)], folder / "lora.safetensors", layout=layout, dtype=dtype)
    made = attended(base, run(host, folder, multiplier), [])
    plain, wanted = attended(base, base, []), attended(base, base, [(style, multiplier)])
    found = float((made - wanted).norm() / (wanted - plain).norm())
    print(f"{host} {family} {layout} {dtype} at {multiplier}: {found:.1e}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("host", MARKS)
@pytest.mark.parametrize(("family", "multiplier"), [("sd1", 0.5), ("sd2", 2.0), ("sdxl", -0.7)])
def test_programs_compute_what_the_network_does(
    host: str, family: str, multiplier: float, tmp_path: Path
) -> None:
    assert error(host, tmp_path, family, multiplier=multiplier) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("host", MARKS)
def test_from_half_precision_too(host: str, tmp_path: Path) -> None:
    """A1111 adds in the LoRA's type, so that fp32 weights are rounded to fp16 there."""
    assert error(host, tmp_path, "sd1", dtype="fp16") < (1e-2 if host == "a1111" else 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("host", MARKS)
def test_the_smaller_layout_is_exact_but_for_a1111(host: str, tmp_path: Path) -> None:
    found = error(host, tmp_path, "sd1", layout="comfyui")
    assert found > 0.05 if host == "a1111" else found < 1e-4
