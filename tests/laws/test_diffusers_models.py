"""What acts where in diffusers' own models: each row of the table in docs/diffusers.md that is
about them, in numbers.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from laws.hosts import traces
from reference import Content, Recipe, relative_error, stacked
from torch import nn

import hypernetworks as hn

CROSS = 12
SMALL: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": CROSS,
}
KINDS = pytest.mark.parametrize("activation", [None, "relu"], ids=["linear", "relu"])
Run = Callable[[nn.Module], torch.Tensor]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    torch.manual_seed(0)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def network(activation: str | None, *widths: int) -> tuple[Content, hn.Hypernetwork]:
    """A strong one, as the reference and as the engine see it."""
    content = Recipe(widths, activation=activation).content()
    structure = hn.Structure((1.0, 2.0, 1.0), activation or "linear", True, False, (0.0,) * 3)
    made = hn.Hypernetwork.from_tensors("n", structure, {w: content[w] for w in widths})
    return content, made


def expected(unet: nn.Module, paths: Sequence[str], content: Content, run: Run) -> torch.Tensor:
    """What a copy gives, with AUTOMATIC1111's formula before ``to_k`` and ``to_v`` at these
    paths.
    """
    copied = copy.deepcopy(unet)
    for path in paths:
        for side, name in enumerate(("to_k", "to_v")):
            copied.get_submodule(f"{path}.{name}").register_forward_pre_hook(
                lambda _, given, side=side: (stacked([(content, 0.8)], given[0], side),)
            )
    return run(copied)


def spatial(unet: nn.Module) -> list[str]:
    """Attention over the positions of an image, by diffusers' names."""
    return [
        path
        for path, module in unet.named_modules()
        if hasattr(module, "to_k") and ".attentions." in path and "temp" not in path
    ]


def check(unet: nn.Module, run: Run, activation: str | None, paths: Sequence[str] = ()) -> None:
    """Networks act at these paths and nowhere else, and leave nothing behind."""
    content, made = network(activation, 8, 16, 32, 64, CROSS)
    plain, before = run(unet), traces(unet)
    right = expected(unet, paths or spatial(unet), content, run)
    assert relative_error(right, plain) > 1e-3
    with hn.apply(unet, [(made, 0.8)]):
        for _ in range(2):
            assert relative_error(run(unet), right) <= 1e-4
    assert torch.equal(run(unet), plain)
    assert traces(unet) == before


def sd1(**settings: Any) -> nn.Module:
    from diffusers import UNet2DConditionModel

    kinds: dict[str, Any] = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 2,
    }
    return UNet2DConditionModel(**{**SMALL, **kinds, **settings}).eval().requires_grad_(False)


def run_sd1(unet: nn.Module) -> torch.Tensor:
    return unet(drawn(2, 4, 8, 8), 7, drawn(2, 5, CROSS)).sample  # type: ignore[no-any-return]


# Video


def videos() -> dict[str, tuple[Callable[[], nn.Module], Run]]:
    from diffusers import (
        I2VGenXLUNet,
        UNet3DConditionModel,
        UNetMotionModel,
        UNetSpatioTemporalConditionModel,
    )

    def kinds(suffix: str, temporal: str = "") -> dict[str, Any]:
        down, up = (f"CrossAttn{way}Block{suffix}" for way in ("Down", "Up"))
        return {
            "down_block_types": (down, f"DownBlock{temporal or suffix}"),
            "up_block_types": (f"UpBlock{temporal or suffix}", up),
        }

    frames, text, image = drawn(1, 4, 3, 8, 8), drawn(1, 5, CROSS), drawn(1, 1, CROSS)
    ids = torch.tensor([[6.0, 127.0, 0.02]])
    motion = {
        "num_attention_heads": 2,
        "motion_num_attention_heads": 2,
        "use_motion_mid_block": False,
    }
    return {
        "AnimateDiff": (
            lambda: UNetMotionModel(**SMALL, **kinds("Motion"), **motion),
            lambda unet: unet(frames, 7, text.expand(3, -1, -1)).sample,
        ),
        "SVD": (
            lambda: UNetSpatioTemporalConditionModel(
                **{k: v for k, v in SMALL.items() if k != "norm_num_groups"}
                | {"block_out_channels": (32, 64)}, **kinds("SpatioTemporal"),
                num_attention_heads=(2, 2), addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=24, in_channels=4,
            ),
            lambda unet: unet(frames.transpose(1, 2), 7, image, ids).sample,
        ),
        "UNet3D": (
            lambda: UNet3DConditionModel(**SMALL, **kinds("3D"), attention_head_dim=2),
            lambda unet: unet(frames, 7, text).sample,
        ),
        "I2VGenXL": (
            lambda: I2VGenXLUNet(
                **SMALL | {"block_out_channels": (32, 64)}, **kinds("3D"), attention_head_dim=8
            ),
            lambda unet: unet(frames, 7, torch.ones(1), frames, image[:, 0], text).sample,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["AnimateDiff", "SVD", "UNet3D", "I2VGenXL"])
def test_in_video_networks_change_attention_in_space_only(name: str) -> None:
    make, run = videos()[name]
    unet = make().eval().requires_grad_(False)
    for parameter in unet.parameters():  # motion modules begin as zeros, without effect
        if not parameter.any():
            parameter.copy_(drawn(*parameter.shape) / 3)
    every = [path for path, module in unet.named_modules() if hasattr(module, "to_k")]
    assert 0 < len(spatial(unet)) < len(every)
    check(unet, run, "relu")


# Other models of a pipeline


@KINDS
def test_ip_adapters_keep_their_own_projections(activation: str | None) -> None:
    unet = sd1()
    cross = [path for path in spatial(unet) if path.endswith("attn2")]
    widths = [unet.get_submodule(path).to_k.out_features for path in cross]  # type: ignore[union-attr,operator]
    # The loader numbers all attention modules, and cross-attention is every second of them.
    adapter = {
        f"{2 * number + 1}.{name}.weight": drawn(width, CROSS)
        for number, width in enumerate(widths)
        for name in ("to_k_ip", "to_v_ip")
    }
    image = {
        "proj.weight": drawn(4 * CROSS, 6),
        "proj.bias": drawn(4 * CROSS),
        "norm.weight": drawn(CROSS),
        "norm.bias": drawn(CROSS),
    }
    unet._load_ip_adapter_weights([{"image_proj": image, "ip_adapter": adapter}])  # type: ignore[operator]

    def run(unet: nn.Module) -> torch.Tensor:
        added = {"image_embeds": [drawn(2, 1, 6)]}
        result = unet(drawn(2, 4, 8, 8), 7, drawn(2, 5, CROSS), added_cond_kwargs=added)
        return result.sample  # type: ignore[no-any-return]

    check(unet, run, activation, spatial(unet))


def test_a_refiner_is_a_model_of_its_own() -> None:
    base, refiner = sd1(), sd1(cross_attention_dim=20)

    def refined() -> torch.Tensor:
        return refiner(drawn(2, 4, 8, 8), 7, drawn(2, 5, 20)).sample  # type: ignore[no-any-return]

    plain, made = refined(), network("relu", 8, 16, CROSS)[1]
    with hn.apply(base, [(made, 0.8)]):
        assert torch.equal(refined(), plain)

    # Of the base's networks, only those for self-attention fit it.
    with hn.apply(refiner, [(made, 0.8)]) as handle:
        assert "without a network: 20" in repr(handle)
        both = refined()
    with hn.apply(refiner, [(made, "0.8:attn=self")]):
        assert torch.equal(refined(), both)
    assert relative_error(both, plain) > 1e-3


@KINDS
def test_controlnets_and_t2i_residuals_are_left_alone(activation: str | None) -> None:
    unet = sd1()
    residuals = [drawn(2, 8, 8, 8) for _ in range(2)], drawn(2, 8, 4, 4), drawn(2, 16, 4, 4)

    def run(unet: nn.Module) -> torch.Tensor:
        down = (*residuals[0], residuals[1], residuals[2])
        result = unet(
            drawn(2, 4, 8, 8), 7, drawn(2, 5, CROSS),
            down_block_additional_residuals=down, mid_block_additional_residual=drawn(2, 16, 4, 4),
        )  # fmt: skip
        return result.sample  # type: ignore[no-any-return]

    check(unet, run, activation)


# Where the weights are, and in which type


def offloaded(unet: nn.Module) -> None:
    from accelerate import cpu_offload

    cpu_offload(unet, execution_device=torch.device("cpu"))


def group_offloaded(unet: nn.Module) -> None:
    cpu = torch.device("cpu")
    unet.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")  # type: ignore[operator]


def stored_as_fp8(unet: nn.Module) -> None:
    unet.enable_layerwise_casting(  # type: ignore[operator]
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    )


def quantised(unet: nn.Module) -> None:
    torch.ao.quantization.quantize_dynamic(unet, {nn.Linear}, torch.qint8, inplace=True)


WAYS = {
    "offload": (offloaded, 1e-4),
    "group offload": (group_offloaded, 1e-4),
    "layerwise casting": (stored_as_fp8, 1e-4),
    "quantised": (quantised, 5e-2),  # its inputs are rounded, too
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("way", list(WAYS))
@KINDS
def test_weights_that_are_offloaded_or_packed(activation: str | None, way: str, when: str) -> None:
    change, tolerance = WAYS[way]
    unet = sd1()
    content, made = network(activation, 8, 16, CROSS)
    changed = copy.deepcopy(unet)
    change(changed)
    plain = run_sd1(changed)
    packed = copy.deepcopy(unet)
    if way == "layerwise casting":  # the weights as they come back from their storage
        packed.load_state_dict({k: v.float() for k, v in changed.state_dict().items()})
    right = expected(packed, spatial(packed), content, run_sd1)
    assert relative_error(right, plain) > 2 * tolerance

    if when == "before":
        change(unet)
    with hn.apply(unet, [(made, 0.8)]):
        run_sd1(unet)
        if when == "after":
            change(unet)
        for _ in range(2):
            assert relative_error(run_sd1(unet), right) <= tolerance
    assert relative_error(run_sd1(unet), plain) <= 1e-5


# Real libraries, where they are installed


def add_lora(unet: Any, name: str, seed: int = 0, *, dora: bool = False) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(seed)
    names = ["to_q", "to_k", "to_v"]
    config = peft.LoraConfig(r=2, target_modules=names, init_lora_weights=False, use_dora=dora)
    unet.add_adapter(config, adapter_name=name)
    unet.requires_grad_(False)


LORAS: dict[str, list[Callable[[Any], object]]] = {
    "fused and unfused": [
        lambda unet: add_lora(unet, "a"),
        lambda unet: unet.fuse_lora(lora_scale=0.7),
        lambda unet: unet.unfuse_lora(),
        lambda unet: unet.unload_lora(),
    ],
    "fused and unloaded": [
        lambda unet: add_lora(unet, "a"),
        lambda unet: unet.fuse_lora(),
        lambda unet: unet.unload_lora(),
    ],
    "two": [
        lambda unet: add_lora(unet, "a"),
        lambda unet: add_lora(unet, "b", 1),
        lambda unet: unet.set_adapters(["a", "b"], [0.5, 0.7]),
        lambda unet: unet.disable_adapters(),
        lambda unet: unet.enable_adapters(),
        lambda unet: unet.delete_adapters(["a"]),
    ],
    "a DoRA": [lambda unet: add_lora(unet, "a", dora=True)],
}


@pytest.mark.parametrize("name", list(LORAS))
@KINDS
def test_loras_of_peft(activation: str | None, name: str) -> None:
    unet = sd1()
    content, made = network(activation, 8, 16, CROSS)
    with hn.apply(unet, [(made, 0.8)]):
        run_sd1(unet)
        for change in LORAS[name]:
            change(unet)
            right = expected(unet, spatial(unet), content, run_sd1)
            for _ in range(2):
                assert relative_error(run_sd1(unet), right) <= 1e-5
    assert torch.equal(run_sd1(unet), run_sd1(copy.deepcopy(unet)))


def replace_linears(unet: nn.Module, made: Callable[[nn.Linear], nn.Module]) -> None:
    for path, module in list(unet.named_modules()):
        parent, _, name = path.rpartition(".")
        if type(module) is nn.Linear and name in ("to_q", "to_k", "to_v"):
            setattr(unet.get_submodule(parent), name, made(module).requires_grad_(False))


def with_torchao(unet: nn.Module) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    quantization.quantize_(unet, quantization.Int8WeightOnlyConfig())


def with_quanto(unet: nn.Module) -> None:
    quanto = pytest.importorskip("optimum.quanto")
    quanto.quantize(unet, weights=quanto.qint8)
    quanto.freeze(unet)


def with_gguf(unet: nn.Module) -> None:
    gguf = pytest.importorskip("gguf")
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter

    def made(layer: nn.Linear) -> nn.Module:
        kind = gguf.GGMLQuantizationType.Q8_0
        packed = torch.from_numpy(gguf.quants.quantize(layer.weight.detach().numpy(), kind).copy())
        other = GGUFLinear(
            layer.in_features, layer.out_features, bias=False, compute_dtype=torch.float32
        )
        other.weight = GGUFParameter(packed, quant_type=kind)
        return other

    replace_linears(unet, made)


def with_bitsandbytes(unet: nn.Module) -> None:
    layers = pytest.importorskip("bitsandbytes").nn

    def made(layer: nn.Linear) -> nn.Module:
        other = layers.Linear4bit(
            layer.in_features, layer.out_features, bias=False, compute_dtype=torch.float32
        )
        other.load_state_dict({"weight": layer.weight.detach()})
        return other.to("cpu")  # type: ignore[no-any-return]

    replace_linears(unet, made)


LIBRARIES = (with_torchao, with_quanto, with_gguf, with_bitsandbytes)


@pytest.mark.parametrize("change", LIBRARIES)
@pytest.mark.parametrize("when", ["before", "after"])
@KINDS
def test_layers_of_quantisation_libraries(
    activation: str | None, when: str, change: Callable[[nn.Module], None]
) -> None:
    def run(unet: nn.Module) -> torch.Tensor:
        return unet(drawn(2, 4, 8, 8), 7, drawn(2, 5, 32)).sample  # type: ignore[no-any-return]

    def make() -> nn.Module:
        torch.manual_seed(0)
        return sd1(block_out_channels=(32, 64), cross_attention_dim=32)

    content, made = network(activation, 32, 64)
    right, plain = make(), make()
    change(right)
    change(plain)
    for path in spatial(right):
        for side, name in enumerate(("to_k", "to_v")):
            right.get_submodule(f"{path}.{name}").register_forward_pre_hook(
                lambda _, given, side=side: (stacked([(content, 0.8)], given[0], side),)
            )

    unet = make()
    if when == "before":
        change(unet)
    with hn.apply(unet, [(made, 0.8)]) as handle:
        run(unet)
        if when == "after":
            change(unet)
        for _ in range(2):
            assert relative_error(run(unet), run(right)) <= 1e-4
        assert set(handle.paths.values()) == {"input"}
    assert torch.equal(run(unet), run(plain))
    assert relative_error(run(right), run(plain)) > 1e-2


@torch.enable_grad()
def test_gradient_checkpointing_as_diffusers_switches_it_on() -> None:
    """``apply`` itself allows it, whichever comes first."""
    made = network("relu", 8, 16, CROSS)[1]
    found = []
    for when in ("never", "before", "after"):
        torch.manual_seed(0)
        unet = sd1().train()
        if when == "before":
            unet.enable_gradient_checkpointing()  # type: ignore[operator]
        text = drawn(2, 5, CROSS).requires_grad_()
        with hn.apply(unet, [(made, 0.8)]):
            if when == "after":
                unet.enable_gradient_checkpointing()  # type: ignore[operator]
            unet(drawn(2, 4, 8, 8), 7, text).sample.square().sum().backward()
        found.append(text.grad)
    for gradient in found[1:]:
        assert relative_error(gradient, found[0]) <= 1e-5
