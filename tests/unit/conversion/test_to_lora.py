"""Linear networks as LoRAs: what they compute, and what is in the files."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from conversion_cases import (
    PREFIX,
    WIDTHS,
    checkpoint,
    merged,
    network,
    output,
    share_of_effect,
    small_unet,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import hypernetworks as hn
from hypernetworks.conversion import Base, Converted, Weighted, to_lora
from hypernetworks.conversion.layers import find_layers
from hypernetworks.conversion.low_rank import Rank
from hypernetworks.errors import (
    CheckpointError,
    FileWriteError,
    HypernetworkError,
    MultiplierError,
    NoMatchingWidthError,
    StructureError,
)

RELU = hn.Structure((1, 2, 1), "relu", activate_output=False)


@pytest.fixture(scope="module")
def unet() -> torch.nn.Module:
    return small_unet()


@pytest.fixture(scope="module")
def base(unet: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("base") / "small.safetensors", unet)


def converted(base: Path, target: Path, *networks: Weighted, **options: object) -> Converted:
    with Base(base) as opened:
        return to_lora(opened, networks, target, **{"dtype": "fp32", **options})  # type: ignore[arg-type]


def with_networks(unet: torch.nn.Module, *networks: Weighted) -> torch.Tensor:
    with hn.apply(unet, [(w.network, w.multiplier) for w in networks]):
        return output(unet)


def with_lora(unet: torch.nn.Module, lora: Path, weight: float = 1.0) -> torch.Tensor:
    changed = deepcopy(unet)
    assert merged(changed, lora, weight) == []
    return output(changed)


@pytest.mark.parametrize("multiplier", [1.0, 0.5, -0.7, 2.0])
@pytest.mark.parametrize(("dtype", "most"), [("fp32", 1e-4), ("fp16", 2e-3)])
def test_the_loras_weight_is_the_multiplier(
    unet: torch.nn.Module, base: Path, tmp_path: Path, multiplier: float, dtype: str, most: float
) -> None:
    style = network("style", 1)
    converted(base, tmp_path / "style.safetensors", Weighted(style), dtype=dtype)
    plain = output(unet)
    with hn.apply(unet, [(style, multiplier)]):
        wanted = output(unet)
    made = with_lora(unet, tmp_path / "style.safetensors", multiplier)
    assert share_of_effect(plain, wanted, plain) == 1
    assert share_of_effect(made, wanted, plain) < most


def test_without_the_bias_of_to_out_it_is_another_network(
    unet: torch.nn.Module, base: Path, tmp_path: Path
) -> None:
    style, lora = network("style", 1), tmp_path / "style.safetensors"
    assert converted(base, lora, Weighted(style)).has_bias
    kept = {name: t for name, t in load_file(lora).items() if not name.endswith("diff_b")}
    save_file(kept, tmp_path / "less.safetensors")
    plain, wanted = output(unet), with_networks(unet, Weighted(style))
    assert share_of_effect(with_lora(unet, lora), wanted, plain) < 1e-4
    assert share_of_effect(with_lora(unet, tmp_path / "less.safetensors"), wanted, plain) > 0.05


@pytest.mark.parametrize(
    "multipliers",
    [("0.7", "-0.3"), ("1:attn=cross", "0.5:k=0.5:v=2"), ("1:lbw=OUTALL", "0.4:attn=self")],
)
def test_several_networks_become_one_lora(
    unet: torch.nn.Module, base: Path, tmp_path: Path, multipliers: tuple[str, str]
) -> None:
    a, b = (
        Weighted(network(name, seed), hn.Multiplier.parse(text))
        for name, seed, text in zip("ab", (1, 2), multipliers, strict=True)
    )
    converted(base, tmp_path / "both.safetensors", a, b)
    plain, wanted = output(unet), with_networks(unet, a, b)
    assert share_of_effect(with_lora(unet, tmp_path / "both.safetensors"), wanted, plain) < 1e-4


def test_a_bottleneck_makes_narrow_factors_for_nothing(
    unet: torch.nn.Module, base: Path, tmp_path: Path
) -> None:
    style, lora = network("style", 3, hn.Structure((1, 0.25, 1))), tmp_path / "style.safetensors"
    done = converted(base, lora, Weighted(style))
    assert {layer.rank for layer in done.layers} == {2, 3, 4, 8}
    assert done.worst.error < 1e-6
    plain, wanted = output(unet), with_networks(unet, Weighted(style))
    assert share_of_effect(with_lora(unet, lora), wanted, plain) < 1e-4


def test_lower_ranks_err_as_they_say(unet: torch.nn.Module, base: Path, tmp_path: Path) -> None:
    style, errors = Weighted(network("style", 1)), list[float]()
    plain, wanted = output(unet), with_networks(unet, style)
    for most in (1, 3, 6):
        done = converted(base, tmp_path / "low.safetensors", style, rank=Rank(most))
        assert {layer.rank for layer in done.layers} == {most}
        errors.append(share_of_effect(with_lora(unet, tmp_path / "low.safetensors"), wanted, plain))
        assert 0 < done.worst.error < 1
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.6


def test_the_automatic_rank_is_the_smallest_that_is_good_enough(base: Path, tmp_path: Path) -> None:
    style = Weighted(network("style", 1))
    with Base(base) as opened:
        from hypernetworks.conversion.weighted import LinearChanges

        changes = LinearChanges(opened, [style])
        products = {layer.path: changes.product(layer, 0) for layer in opened.layers}
    done = converted(base, tmp_path / "auto.safetensors", style, rank=Rank(error=0.4))
    for layer in done.layers:
        if not layer.name.endswith("to_k"):
            continue
        assert layer.error <= 0.4
        values = torch.linalg.svdvals(products[layer.name.removesuffix(".to_k")].double())
        left = [float(values[rank:].norm() / values.norm()) for rank in range(len(values) + 1)]
        smallest = next(rank for rank, error in enumerate(left) if error <= 0.4)
        if layer.rank is not None:  # else whole, as that is smaller
            assert layer.rank == smallest
            assert layer.error == pytest.approx(left[smallest], rel=1e-3)


def test_every_bias_stands_beside_a_diff_and_comfyuis_layout_is_smaller(
    unet: torch.nn.Module, base: Path, tmp_path: Path
) -> None:
    style = Weighted(network("style", 1))
    converted(base, tmp_path / "kohya.safetensors", style)
    converted(base, tmp_path / "comfyui.safetensors", style, layout="comfyui")
    kohya = load_file(tmp_path / "kohya.safetensors")
    biases = [name for name in kohya if name.endswith(".diff_b")]
    assert len(biases) == 16 * 2
    assert all(not kohya[name.removesuffix("_b")].any() for name in biases)
    assert all("_to_out_0" in name for name in biases)
    wanted = with_lora(unet, tmp_path / "kohya.safetensors")
    assert torch.equal(with_lora(unet, tmp_path / "comfyui.safetensors"), wanted)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("comfyui", "kohya")]
    assert sizes[0] < sizes[1]


def test_the_metadata_says_what_it_is(base: Path, tmp_path: Path) -> None:
    style = Weighted(network("style", 1), hn.Multiplier.parse("0.7"))
    converted(base, tmp_path / "mine.safetensors", style, rank=Rank(4))
    with safe_open(tmp_path / "mine.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_output_name"] == metadata["modelspec.title"] == "mine"
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == "4"
    assert metadata["ss_sd_model_name"] == "small.safetensors"
    origin = json.loads(metadata["hypernetworks_origin"])
    assert origin["networks"][0] == {
        "name": "style", "multiplier": "0.7", "step": 0, "checkpoint": None,
    }  # fmt: skip
    assert origin["base"] == "small"


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("models/painted", "painted"),
        ("models/painted-v1.5", "painted-v1.5"),
        ("models--someone--a-model/snapshots/0f1e2d3c", "someone/a-model"),
        ("miniature/weights", "miniature"),
    ],
)
def test_a_folder_is_called_what_people_call_it(
    base: Path, tmp_path: Path, folder: str, name: str
) -> None:
    unet = tmp_path / folder / "unet"
    unet.mkdir(parents=True)
    shutil.copyfile(base, unet / "diffusion_pytorch_model.safetensors")
    converted(tmp_path / folder, tmp_path / "x.safetensors", Weighted(network("style", 1)))
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_sd_model_name"] == json.loads(metadata["hypernetworks_origin"])["base"]
    assert metadata["ss_sd_model_name"] == name


def test_the_same_networks_give_the_same_bytes(base: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        converted(base, tmp_path / name / "style.safetensors", Weighted(network("style", 1)))
    first, second = ((tmp_path / name / "style.safetensors").read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize(
    ("made", "error", "said"),
    [
        (lambda: network("x", 1, RELU), StructureError, '"x" is not linear (it has relu)'),
        (
            lambda: network("x", 1, hn.Structure((1, 1), layer_norm=True, dropout=(0, 0))),
            StructureError,
            "layer norm",
        ),
        (lambda: network("x", 1, widths=(5, 7)), NoMatchingWidthError, "has the widths 5, 7"),
        (lambda: network("x", 1, widths=(768, 8)), NoMatchingWidthError, "x was made for SD1"),
    ],
)
def test_networks_that_can_not_be_exact_are_refused(
    base: Path, tmp_path: Path, made: object, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said.replace("(", r"\(").replace(")", r"\)")):
        converted(base, tmp_path / "x.safetensors", Weighted(made()))  # type: ignore[operator]
    assert list(tmp_path.iterdir()) == []


def test_a_schedule_can_not_be_a_lora() -> None:
    with pytest.raises(MultiplierError, match="changes during sampling"):
        Weighted(network("x", 1), hn.Multiplier.parse("1@0,0@1"))


def test_multiplier_zero_leaves_nothing_to_write(base: Path, tmp_path: Path) -> None:
    with pytest.raises(HypernetworkError, match="change nothing"):
        converted(base, tmp_path / "x.safetensors", Weighted(network("x", 1), hn.Multiplier.of(0)))


def test_numbers_beyond_the_type_are_refused(base: Path, tmp_path: Path) -> None:
    strong = Weighted(network("x", 1, std=300))
    with pytest.raises(HypernetworkError, match="don't fit the type float16"):
        converted(base, tmp_path / "x.safetensors", strong, dtype="fp16")
    converted(base, tmp_path / "x.safetensors", strong, dtype="bf16")


@pytest.mark.parametrize("target", ["x.pt", "nowhere/x.safetensors"])
def test_targets_are_checked_before_the_work(base: Path, tmp_path: Path, target: str) -> None:
    with pytest.raises(FileWriteError):
        converted(base, tmp_path / target, Weighted(network("x", 1)))


def _head(name: str, content: bytes, tmp_path: Path) -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def _tensors(tensors: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    save_file(tensors, tmp_path / "other.safetensors")
    return tmp_path / "other.safetensors"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda at: at / "none.safetensors", "no such file"),
        (lambda at: at, "no unet/diffusion_pytorch_model.safetensors"),
        (lambda at: _head("x.ckpt", b"PK\x03\x04" + b"0" * 99, at), "pickle"),
        (lambda at: _head("x.safetensors", b"<html>", at), "not a .safetensors file"),
        (lambda at: _head("x.safetensors", (99).to_bytes(8, "little") + b"{}", at), "ends before"),
        (lambda at: _tensors({"320.k.linear.0.weight": torch.ones(1)}, at), "is a hypernetwork"),
        (lambda at: _tensors({"lora_unet_x.diff": torch.ones(1)}, at), "is a LoRA"),
        (lambda at: _tensors({"double_blocks.0.x": torch.ones(1)}, at), "Flux"),
        (lambda at: _tensors({"something": torch.ones(1)}, at), "no attention"),
    ],
)
def test_other_files_are_no_base(tmp_path: Path, make: object, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        Base(make(tmp_path))  # type: ignore[operator]


def test_a_cut_base_is_refused(base: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(base.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="incomplete"):
        Base(cut)


def test_eight_bit_weights_are_refused(unet: torch.nn.Module, tmp_path: Path) -> None:
    small = checkpoint(tmp_path / "fp8.safetensors", unet, torch.float8_e4m3fn)
    with pytest.raises(CheckpointError, match="too few bits"):
        converted(small, tmp_path / "x.safetensors", Weighted(network("x", 1)))


def test_all_widths_of_the_unet_are_met() -> None:
    assert WIDTHS == (12, 8, 16, 32)


def test_small_models_with_one_layer_in_a_block_have_their_names() -> None:
    """The original layout counts blocks through: the first that makes the image smaller tells."""
    key = f"{PREFIX}{{}}.1.transformer_blocks.0.attn1.to_k.weight"
    shapes = {key.format(place): (8, 8) for place in ("input_blocks.3", "output_blocks.2")}
    assert [layer.path.split(".transformer")[0] for layer in find_layers(shapes)] == [
        "down_blocks.0.attentions.2",
        "up_blocks.0.attentions.2",
    ]
    shapes[f"{PREFIX}input_blocks.2.0.op.weight"] = (8, 8, 3, 3)
    assert [layer.path.split(".transformer")[0] for layer in find_layers(shapes)] == [
        "down_blocks.1.attentions.0",
        "up_blocks.1.attentions.0",
    ]
