"""LoRAs that we write, applied by the LoRA code of AUTOMATIC1111, Forge, SD.Next and ComfyUI.

``HYPERNETWORKS_WEBUI_SOURCES`` names a folder with their sources; what isn't there is skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conversion_cases import PREFIX, network
from safetensors.torch import load_file, save_file

import hypernetworks as hn
from hypernetworks.conversion import Base, Weighted, bake, to_lora
from hypernetworks.conversion.lora_files import Narrow, named_tensors, save_lora

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
ACROSS = (1.0, 0.5, -0.7, 2.0)


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
        kernel = (1, 1) if text_width == TEXT_WIDTHS["sd1"] else ()
        for leaf, shape in (
            ("proj_in", (channels, channels, *kernel)),
            ("proj_out", (channels, channels, *kernel)),
            ("transformer_blocks.0.ff.net.0.proj", (8 * channels, channels)),
            ("transformer_blocks.0.ff.net.2", (channels, 4 * channels)),
        ):
            weight = torch.randn(shape, generator=generator) * shape[1] ** -0.5
            tensors[f"{PREFIX}{place}.{leaf}.weight"] = weight.to(dtype)
            tensors[f"{PREFIX}{place}.{leaf}.bias"] = torch.zeros(shape[0], dtype=dtype)
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


def run(host: str, folder: Path, multipliers: Sequence[float], clean: bool = True) -> list[Path]:
    """The weights that a program makes of the LoRA in the folder.

    Args:
        clean: whether the program must find every tensor to its liking.
    """
    script = Path(__file__).with_name("lora_hosts.py")
    done = subprocess.run(
        [sys.executable, str(script), host, str(SOURCES), str(folder), *map(str, multipliers)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    if clean:
        assert "MISMATCH" not in done.stdout + done.stderr
        assert "unused" not in done.stdout, done.stdout
    return [folder / f"{host}{multiplier}.safetensors" for multiplier in multipliers]


def errors(
    host: str,
    folder: Path,
    family: str,
    layout: str = "kohya",
    dtype: str = "fp32",
    multipliers: Sequence[float] = ACROSS,
    clean: bool = True,
) -> list[float]:
    """Of what the program makes, as shares of the network's effect."""
    if not (SOURCES / host / MARKS[host]).is_file():
        pytest.skip(f"HYPERNETWORKS_WEBUI_SOURCES has no {host}")
    base, width, found = folder / "base.safetensors", TEXT_WIDTHS[family], list[float]()
    make_base(base, width, torch.float32)
    style = network("style", 1, widths=(width, *CHANNELS), std=0.3 * max(CHANNELS) ** -0.5)
    with Base(base) as opened:
        to_lora(opened, [Weighted(style)], folder / "lora.safetensors", layout=layout, dtype=dtype)

    plain = attended(base, base, [])
    for multiplier, weights in zip(multipliers, run(host, folder, multipliers, clean), strict=True):
        made, wanted = attended(base, weights, []), attended(base, base, [(style, multiplier)])
        found.append(float((made - wanted).norm() / (wanted - plain).norm()))
    print(f"{host} {family} {layout} {dtype}: {[f'{error:.1e}' for error in found]}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("host", MARKS)
@pytest.mark.parametrize("family", TEXT_WIDTHS)
@pytest.mark.parametrize(("dtype", "most"), [("fp32", 1e-4), ("fp16", 5e-4)])
def test_programs_compute_what_the_network_does(
    host: str, family: str, dtype: str, most: float, tmp_path: Path
) -> None:
    layout = "a1111" if host == "a1111" and dtype == "fp16" else "kohya"
    assert max(errors(host, tmp_path, family, layout, dtype)) < most


@pytest.mark.slow
@pytest.mark.parametrize("family", TEXT_WIDTHS)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-4), (torch.float16, 1e-3)])
def test_a_baked_checkpoint_does_what_the_network_does(
    family: str, dtype: torch.dtype, most: float, tmp_path: Path
) -> None:
    """An fp16 checkpoint rounds each changed weight once: that is what it can hold."""
    base, width, found = tmp_path / "base.safetensors", TEXT_WIDTHS[family], list[float]()
    make_base(base, width, dtype)
    style = network("style", 1, widths=(width, *CHANNELS), std=0.3 * max(CHANNELS) ** -0.5)
    plain = attended(base, base, [])
    for multiplier in (0.5, -0.7):
        target = tmp_path / f"baked{multiplier}.safetensors"
        with Base(base) as opened:
            bake(opened, [Weighted(style, hn.Multiplier.of(multiplier))], target)
        made, wanted = attended(base, target, []), attended(base, base, [(style, multiplier)])
        found.append(float((made - wanted).norm() / (wanted - plain).norm()))
    print(f"bake {family} {dtype}: {[f'{error:.1e}' for error in found]}")
    assert max(found) < most


@pytest.mark.slow
def test_a1111_rounds_its_weights_to_half_precision_beside_a_diff_of_that_type(
    tmp_path: Path,
) -> None:
    """Which is why it has a layout of its own."""
    (found,) = errors("a1111", tmp_path, "sd1", "kohya", "fp16", [1.0])
    assert 3e-4 < found < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("host", MARKS)
@pytest.mark.parametrize("layout", ["comfyui", "a1111"])
def test_the_smaller_layouts_are_exact_but_for_one_program(
    host: str, layout: str, tmp_path: Path
) -> None:
    """Forge and ComfyUI print a warning on each zero of A1111's, and are right for all that."""
    clean = (host, layout) not in (("forge", "a1111"), ("comfyui", "a1111"))
    (found,) = errors(host, tmp_path, "sd1", layout, multipliers=[1.0], clean=clean)
    assert found > 0.05 if (host, layout) == ("a1111", "comfyui") else found < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("host", MARKS)
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_distilled_lora_reaches_all_its_layers(host: str, family: str, tmp_path: Path) -> None:
    if not (SOURCES / host / MARKS[host]).is_file():
        pytest.skip(f"HYPERNETWORKS_WEBUI_SOURCES has no {host}")
    base = tmp_path / "base.safetensors"
    make_base(base, TEXT_WIDTHS[family], torch.float32)
    generator, weights, parts = torch.Generator().manual_seed(4), load_file(base), list[Narrow]()
    wanted = {}
    with Base(base) as opened:
        blocks = {
            tuple(path.split(".transformer_blocks.")[0] for path in (layer.path, layer.original))
            for layer in opened.layers
        }
    for path, original in sorted(blocks):
        stored = f"{PREFIX}{original}."
        for name in [n for n in weights if n.startswith(stored) and n.endswith(".weight")]:
            leaf, weight = name.removeprefix(stored).removesuffix(".weight"), weights[name]
            up, down = (
                torch.randn(shape, generator=generator)
                for shape in ((weight.shape[0], 4), (4, weight.shape[1]))
            )
            names = f"{path}.{leaf}", f"{original}.{leaf}"
            parts.append(Narrow(*names, up, down, tuple(weight.shape[2:])))
            wanted[name] = -0.7 * (up @ down).reshape(weight.shape)
    save_lora(
        tmp_path / "lora.safetensors",
        named_tensors(parts, "kohya", torch.float32, family.upper()),
        {"format": "pt"},
    )

    made = load_file(run(host, tmp_path, [-0.7])[0])
    assert len(wanted) >= 12 * len(blocks)
    for name, change in wanted.items():
        error = (made[name] - weights[name] - change).norm() / change.norm()
        assert error < 1e-5, name
