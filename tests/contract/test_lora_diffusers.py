"""LoRAs that we write for diffusers, loaded by diffusers and peft themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conversion_cases import network, share_of_effect

import hypernetworks as hn
from hypernetworks.conversion import Base, Weighted, to_lora
from hypernetworks.conversion.low_rank import FULL, Rank

pytest.importorskip("peft")
pytestmark = [
    # peft's own, and true: such a LoRA can't be fused (bake does that)
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed"),
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`"),
]

WIDTHS = (32, 64, 48)
FAMILIES = {"sd1": 768, "sd2": 1024, "sdxl": 2048}
"""Widths of the text context."""
ACROSS = (1.0, 0.5, -0.7, 2.0)


@pytest.fixture(scope="module")
def pipeline(tiny_folder: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    loaded = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    loaded.unet.requires_grad_(False)
    return loaded


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A pipeline of the family's class, with its shapes on narrow layers, and its folder."""
    import diffusers

    torch.manual_seed(1)
    is_sdxl = request.param == "sdxl"
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=2,
        down_block_types=(
            "DownBlock2D" if is_sdxl else "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
        ),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D" if is_sdxl else "CrossAttnUpBlock2D"),
        cross_attention_dim=FAMILIES[request.param],
        transformer_layers_per_block=(1, 2) if is_sdxl else 1,
        attention_head_dim=2,
        norm_num_groups=8,
        use_linear_projection=request.param != "sd1",
    )
    folder = tmp_path_factory.mktemp(request.param)
    unet.save_pretrained(folder / "unet")
    unet.requires_grad_(False)

    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "feature_extractor"))
    if is_sdxl:
        parts |= dict.fromkeys(("text_encoder_2", "tokenizer_2"))
        kind: Any = diffusers.StableDiffusionXLPipeline
    else:
        parts |= {"safety_checker": None, "requires_safety_checker": False}  # type: ignore[dict-item]
        kind = diffusers.StableDiffusionPipeline
    return kind(unet=unet, scheduler=diffusers.DDIMScheduler(), **parts), folder


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "most"), [("fp32", 1e-4), ("fp16", 5e-4)])
def test_every_family_through_diffusers_and_peft(
    family: Any, tmp_path: Path, dtype: str, most: float
) -> None:
    pipeline, folder = family
    width = pipeline.unet.config.cross_attention_dim
    # About as strong as the context itself, as strong styles are.
    style = network("style", 1, widths=(32, 64, width), std=0.02)
    lora = tmp_path / "style.safetensors"
    with Base(folder) as base:
        to_lora(base, [Weighted(style)], lora, layout="peft", dtype=dtype)
    found = errors(pipeline, lora, style)
    print(f"diffusers, {width}, {dtype}: {[f'{e:.1e}' for e in found]}")
    assert max(found) < most


def output(unet: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    width: Any = unet.config
    context = torch.randn(2, 9, width.cross_attention_dim, generator=generator)
    with torch.no_grad():
        return unet(x, torch.tensor([3, 400]), context).sample  # type: ignore[no-any-return]


def errors(pipeline: Any, lora: Path, style: hn.Hypernetwork) -> list[float]:
    """Per multiplier, the error of what diffusers makes of the file."""
    unet, found = pipeline.unet, []
    plain = output(unet)
    wanted = []
    for multiplier in ACROSS:
        with hn.apply(unet, [(style, multiplier)]):
            wanted.append(output(unet))
    pipeline.load_lora_weights(lora.parent, weight_name=lora.name, adapter_name="style")
    try:
        for multiplier, right in zip(ACROSS, wanted, strict=True):
            pipeline.set_adapters("style", multiplier)
            found.append(share_of_effect(output(unet), right, plain))
    finally:
        pipeline.unload_lora_weights()
    assert torch.equal(output(unet), plain)
    return found


@pytest.mark.parametrize(("dtype", "most"), [("fp32", 1e-4), ("fp16", 5e-4)])
def test_diffusers_computes_what_the_network_does(
    pipeline: Any, tiny_folder: Path, tmp_path: Path, dtype: str, most: float
) -> None:
    style = network("style", 1, widths=WIDTHS, std=0.15)
    lora = tmp_path / "style.safetensors"
    with Base(tiny_folder) as base:
        to_lora(base, [Weighted(style)], lora, layout="peft", dtype=dtype)
    found = errors(pipeline, lora, style)
    print(f"diffusers, peft layout, {dtype}: {[f'{e:.1e}' for e in found]}")
    assert max(found) < most


@pytest.mark.parametrize("rank", [Rank(8), Rank(error=0.3), FULL], ids=["8", "auto", "bottleneck"])
def test_diffusers_scales_every_rank_alike(
    pipeline: Any, tiny_folder: Path, tmp_path: Path, rank: Rank
) -> None:
    """Against the same file in kohya's layout, read by the tests: ranks differ from layer to
    layer."""
    structure = hn.Structure((1, 0.25, 1)) if rank is FULL else hn.Structure()
    style = network("style", 1, structure, widths=WIDTHS, std=0.15)
    lora = tmp_path / "style.safetensors"
    with Base(tiny_folder) as base:
        done = to_lora(base, [Weighted(style)], lora, rank=rank, layout="peft", dtype="fp32")
    found = errors(pipeline, lora, style)
    if rank is FULL:
        assert max(found) < 1e-4
    else:
        assert 1e-3 < found[0] < 2 * done.worst.error


def test_peft_alone_reads_it(tiny_folder: Path, tmp_path: Path, pipeline: Any) -> None:
    """Without diffusers' loader: the adapter's own metadata and tensors."""
    import json
    from copy import deepcopy

    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
    from safetensors import safe_open
    from safetensors.torch import load_file

    style = network("style", 1, hn.Structure((1, 0.25, 1)), widths=WIDTHS, std=0.15)
    lora = tmp_path / "style.safetensors"
    with Base(tiny_folder) as base:
        to_lora(base, [Weighted(style)], lora, layout="peft", dtype="fp32")
    with safe_open(lora, "pt") as file:
        found = json.loads(file.metadata()["lora_adapter_metadata"])
    unet = deepcopy(pipeline.unet)
    plain = output(unet)
    with hn.apply(unet, [(style, 1.0)]):
        wanted = output(unet)
    inject_adapter_in_model(
        LoraConfig(**{key.removeprefix("unet."): value for key, value in found.items()}), unet
    )
    state = {name.removeprefix("unet."): tensor for name, tensor in load_file(lora).items()}
    result = set_peft_model_state_dict(unet, state)
    assert result.unexpected_keys == []
    assert share_of_effect(output(unet), wanted, plain) < 1e-4
