"""Hypernetworks from LoRAs and from fine-tuned checkpoints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from conversion_cases import PREFIX, checkpoint, network, small_unet
from safetensors.torch import load_file, save_file

import hypernetworks as hn
from hypernetworks.cli import main
from hypernetworks.conversion import Base, Weighted, bake, to_lora
from hypernetworks.conversion.extracting import Extracted, from_checkpoints, from_lora
from hypernetworks.conversion.lora_reading import LoraFile
from hypernetworks.conversion.low_rank import Rank
from hypernetworks.conversion.merging import difference
from hypernetworks.errors import CheckpointError, NoMatchingWidthError


@pytest.fixture(scope="module")
def unet() -> torch.nn.Module:
    return small_unet()


@pytest.fixture(scope="module")
def base(unet: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("base") / "small.safetensors", unet)


@pytest.fixture(scope="module")
def style() -> hn.Hypernetwork:
    return network("style", 1)


@pytest.fixture(scope="module")
def lora(base: Path, style: hn.Hypernetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lora") / "style.safetensors"
    with Base(base) as opened:
        to_lora(opened, [Weighted(style)], path, dtype="fp32")
    return path


def extracted(lora: Path, base: Path) -> Extracted:
    with Base(base) as opened:
        return from_lora("again", lora, opened)


def of_values(found: hn.Hypernetwork, wanted: hn.Hypernetwork) -> float:
    """The difference; the key's bias can't be told from a LoRA, and has no effect."""
    for made in (found, wanted):
        for key, _ in made.pairs.values():
            key.linear[-1].bias.data.zero_()
    return difference([Weighted(wanted)], [Weighted(found)])


@pytest.mark.parametrize("layout", ["kohya", "comfyui", "a1111", "peft"])
def test_the_lora_of_a_linear_network_gives_it_back(
    base: Path, tmp_path: Path, layout: str
) -> None:
    style = network("style", 1, hn.Structure((1, 1), dropout=(0, 0)))
    with Base(base) as opened:
        to_lora(opened, [Weighted(style)], tmp_path / "l.safetensors", layout=layout, dtype="fp32")
    found = extracted(tmp_path / "l.safetensors", base)
    assert found.share > 0.9999
    assert found.inside > 0.9999
    assert not found.is_poor
    assert of_values(found.network, style) < 1e-2


def test_a_baked_checkpoint_gives_the_network_back(base: Path, tmp_path: Path) -> None:
    style = network("style", 1, hn.Structure((1, 1), dropout=(0, 0)))
    baked = tmp_path / "baked.safetensors"
    with Base(base) as opened:
        bake(opened, [Weighted(style)], baked)
    with Base(baked) as tuned, Base(base) as opened:
        found = from_checkpoints("again", tuned, opened)
    assert found.share > 0.9999
    assert found.inside > 0.9999
    assert of_values(found.network, style) < 1e-2


def loaded(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in memory of their own, so that the file can be written anew."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def linear(seed: int = 1) -> hn.Hypernetwork:
    return network("style", seed, hn.Structure((1, 1), dropout=(0, 0)))


def of_layout(base: Path, target: Path, layout: str) -> None:
    """Write the LoRA of the linear network, with factors of rank 2."""
    with Base(base) as opened:
        to_lora(opened, [Weighted(linear())], target, layout=layout, rank=Rank(2), dtype="fp32")


@pytest.mark.parametrize("layout", ["kohya", "comfyui", "a1111"])
def test_another_alpha_than_the_rank_counts(base: Path, tmp_path: Path, layout: str) -> None:
    of_layout(base, tmp_path / "l.safetensors", layout)
    once = extracted(tmp_path / "l.safetensors", base).network
    tensors = loaded(tmp_path / "l.safetensors")
    # biases are no factors in these layouts, so alpha doesn't count for them
    doubled = {
        name: t * 2 if name.endswith((".alpha", ".diff", ".diff_b")) else t
        for name, t in tensors.items()
    }
    save_file(doubled, tmp_path / "l.safetensors")
    assert of_values(extracted(tmp_path / "l.safetensors", base).network, doubled_of(once)) < 1e-5


def doubled_of(made: hn.Hypernetwork) -> hn.Hypernetwork:
    """The linear network with twice the effect."""
    for pair in made.pairs.values():
        for side in pair:
            for parameter in side.linear[-1].parameters():
                parameter.data *= 2
    return made


@pytest.mark.parametrize(
    "settings",
    [
        {"unet.lora_alpha": 4},
        {"unet.lora_alpha": 2 * 2**0.5, "unet.use_rslora": True},
        {"unet.lora_alpha": 1, "unet.alpha_pattern": {".*": 4, "to_k": 3}},
        {"unet.lora_alpha": 5, "unet.alpha_pattern": {"to_[kv]": 4, r"to_out\.0": 4.0}},
    ],
)
def test_peft_s_alpha_counts(base: Path, tmp_path: Path, settings: dict[str, object]) -> None:
    path = tmp_path / "l.safetensors"
    of_layout(base, path, "peft")
    tensors = loaded(path)
    own = extracted(path, base).network
    save_file(tensors, path)
    # our own metadata has the rank as alpha
    assert of_values(extracted(path, base).network, own) == 0

    once = extracted(path, base).network
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps({"unet.r": 2, **settings})})
    assert of_values(extracted(path, base).network, doubled_of(once)) < 1e-5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{", "isn't valid JSON"),
        ("[]", "is not a JSON object"),
        ('{"unet.lora_alpha": "8"}', "has the alpha 8, which can't be used"),
        ('{"unet.lora_alpha": NaN}', "has the alpha nan"),
        ('{"unet.lora_alpha": 8, "unet.alpha_pattern": {"(": 1}}', "no regular expression"),
        ('{"unet.lora_alpha": 8, "unet.alpha_pattern": {"(a+)+": 1}}', "too many repeats"),
        ('{"unet.lora_alpha": 8, "unet.alpha_pattern": [1]}', "not a JSON object"),
    ],
)
def test_settings_of_peft_that_cannot_be_used(
    base: Path, tmp_path: Path, settings: str, message: str
) -> None:
    path = tmp_path / "l.safetensors"
    of_layout(base, path, "peft")
    save_file(loaded(path), path, {"lora_adapter_metadata": settings})
    with pytest.raises(CheckpointError, match=rf"^l\.safetensors: .*{re.escape(message)}"):
        extracted(path, base)


@pytest.mark.parametrize("ending", [".lora_magnitude_vector", ".lora_magnitude_vector.weight"])
def test_the_dora_of_diffusers_is_refused(base: Path, tmp_path: Path, ending: str) -> None:
    path = tmp_path / "l.safetensors"
    of_layout(base, path, "peft")
    tensors = loaded(path)
    factors = [name for name in tensors if name.endswith(".lora_B.weight")]
    tensors |= {n.replace(".lora_B.weight", ending): torch.ones(len(tensors[n])) for n in factors}
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="LyCORIS or DoRA file"):
        extracted(path, base)


def test_a_convolution_in_three_parts_is_put_together(tmp_path: Path) -> None:
    torch.manual_seed(3)
    narrow = torch.nn.Conv2d(5, 2, 1, bias=False)
    middle = torch.nn.Conv2d(2, 2, 3, bias=False)
    wide = torch.nn.Conv2d(2, 4, 1, bias=False)
    parts = {"down": narrow, "mid": middle, "up": wide}
    tensors = {f"lora_unet_conv.lora_{name}.weight": part.weight for name, part in parts.items()}
    save_file(tensors | {"lora_unet_conv.alpha": torch.tensor(6.0)}, tmp_path / "l.safetensors")
    with LoraFile(tmp_path / "l.safetensors") as lora:
        change = lora.change("conv")
    assert change is not None

    image = torch.randn(1, 5, 6, 6)
    wanted = 3 * wide(middle(narrow(image)))
    found = torch.nn.functional.conv2d(image, change.reshape(4, 5, 3, 3))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def renamed(lora: Path, target: Path, old: str, new: str) -> Path:
    save_file({name.replace(old, new): t for name, t in load_file(lora).items()}, target)
    return target


@pytest.mark.parametrize(
    ("ending", "old_of_diffusers"),
    [("_to_k", "attn1.processor.to_k_lora"), ("_to_v", "attn2.processor.to_v_lora")],
)
def test_old_names_are_known(ending: str, old_of_diffusers: str) -> None:
    from hypernetworks.conversion.lora_reading import _normal

    attention = old_of_diffusers.split(".")[0]
    place = "down_blocks.0.attentions.1.transformer_blocks.0"
    wanted = f"{place}.{attention}".replace(".", "_") + ending
    assert _normal(f"lora_unet_{wanted}") == wanted
    assert _normal(f"unet.{place}.{old_of_diffusers}".removesuffix("_lora")) == wanted
    assert _normal(f"base_model.model.unet.{place}.{attention}.{ending[1:]}") == wanted


def test_any_other_lora_is_called_poor(
    base: Path, lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A matrix of its own for each layer, and changes elsewhere."""
    generator = torch.Generator().manual_seed(2)
    tensors = {
        name: torch.randn(t.shape, generator=generator)
        for name, t in load_file(lora).items()
        if name.endswith(("to_k.diff", "to_v.diff"))
    }
    elsewhere = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_2"
    tensors[f"{elsewhere}.lora_up.weight"] = torch.randn(64, 4, generator=generator)
    tensors[f"{elsewhere}.lora_down.weight"] = torch.randn(4, 64, generator=generator)
    tensors[f"{elsewhere}.alpha"] = torch.tensor(4.0)
    other = tmp_path / "other.safetensors"
    save_file(tensors, other)

    found = extracted(other, base)
    assert 0.01 < found.share < 0.6
    assert 0.1 < found.inside < 0.95
    assert found.is_poor

    target = tmp_path / "poor.pt"
    command = ["extract", "--from-lora", str(other), "--base", str(base), "-o", str(target)]
    assert main(command) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("poor: the network has ")
    assert f"{found.inside:.1%} of all that was changed" in first
    assert last == str(target)
    assert hn.read(target).structure.is_linear


def test_the_command_reads_checkpoints_too(
    base: Path, style: hn.Hypernetwork, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baked, target = tmp_path / "baked.safetensors", tmp_path / "again.safetensors"
    with Base(base) as opened:
        bake(opened, [Weighted(style)], baked)
    command = ["extract", "--from-checkpoints", str(baked), str(base), "-o", str(target)]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("the network has 100.0% of the change")
    assert main(command) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*command, "--base", str(base), "--overwrite"]) == 2
    assert "belong together" in capsys.readouterr().err


def test_other_files_are_refused(base: Path, lora: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tensors of a LoRA"):
        extracted(base, base)
    lycoris = renamed(lora, tmp_path / "l.safetensors", ".diff", ".hada_w1_a")
    with pytest.raises(CheckpointError, match="LyCORIS"):
        extracted(lycoris, base)
    elsewhere = renamed(lora, tmp_path / "e.safetensors", "_attn", "_other")
    with pytest.raises(CheckpointError, match="nothing changes to_k or to_v"):
        extracted(elsewhere, base)


def test_another_family_is_refused(base: Path, lora: Path, tmp_path: Path) -> None:
    cut = {n: t[:, :-1] if t.ndim == 2 else t for n, t in load_file(lora).items()}
    save_file({n: t.contiguous() for n, t in cut.items()}, tmp_path / "cut.safetensors")
    with pytest.raises(NoMatchingWidthError, match="of the same family"):
        extracted(tmp_path / "cut.safetensors", base)

    fewer = {n: t for n, t in load_file(base).items() if not n.startswith(f"{PREFIX}middle")}
    save_file(fewer, tmp_path / "fewer.safetensors")
    with (
        Base(tmp_path / "fewer.safetensors") as tuned,
        Base(base) as opened,
        pytest.raises(NoMatchingWidthError, match="different families"),
    ):
        from_checkpoints("x", tuned, opened)


def test_equal_checkpoints_have_nothing_to_extract(base: Path) -> None:
    with (
        Base(base) as tuned,
        Base(base) as opened,
        pytest.raises(CheckpointError, match="nothing changes"),
    ):
        from_checkpoints("x", tuned, opened)
