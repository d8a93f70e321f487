"""UNets with random weights, made on the device that they run on, and the networks to put on
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

import hypernetworks as hn
from hypernetworks.patching import find_sites

from .. import cases
from ..cases import ActiveNetworks, Networks

FULL: dict[str, dict[str, Any]] = {
    "SD1.5": {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64},
    "SDXL": {
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "sample_size": 128,
    },
}
SMALL: dict[str, dict[str, Any]] = {
    "SD1.5": {
        "cross_attention_dim": 24,
        "attention_head_dim": 2,
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "norm_num_groups": 4,
        "layers_per_block": 1,
    },
    "SDXL": {
        **FULL["SDXL"],
        "cross_attention_dim": 40,
        "attention_head_dim": (1, 2, 4),
        "block_out_channels": (16, 32, 64),
        "transformer_layers_per_block": 1,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 88,
        "norm_num_groups": 4,
        "layers_per_block": 1,
    },
}


@dataclass(frozen=True)
class Setting:
    """Where and how large everything runs.

    Attributes:
        device: ``"cuda"`` or, in a rehearsal, ``"cpu"``.
        rounds: rounds of interleaved measurements.
        is_small: whether this is a rehearsal.
        is_brief: whether even what takes no device is done in small: in a rehearsal of everything.
    """

    device: str
    rounds: int
    is_small: bool
    is_brief: bool = False

    @property
    def half(self) -> torch.dtype:
        """What most users' UNets compute in; fp32 in a rehearsal."""
        return torch.float32 if self.is_small else torch.float16

    @property
    def calls(self) -> int:
        """For one number, the fastest of them."""
        return 1 if self.is_small else 3

    @property
    def fewer(self) -> Setting:
        """The same for what matters less."""
        return replace(self, rounds=max(1, self.rounds // 2))


@dataclass
class Subject:
    """A UNet of a family, and inputs for it.

    Args:
        family: ``"SD1.5"`` or ``"SDXL"``.
        size: pixels of one edge; a rehearsal takes a sixteenth of it.
        device: ``"meta"`` for counts alone.
    """

    family: str
    size: int
    dtype: torch.dtype
    device: str
    is_small: bool = False
    unet: Any = field(init=False)

    def __post_init__(self) -> None:
        self.unet = built(self.family, self.dtype, self.device, self.is_small)
        self.width = int(self.unet.config.cross_attention_dim)

    @property
    def widths(self) -> tuple[int, ...]:
        """Of all contexts, rising."""
        return tuple(sorted({s.width for s in find_sites(self.unet) if s.width is not None}))

    def inputs(self, size: int | None = None, batch: int = 2) -> dict[str, Any]:
        """Fresh arguments of one call: ``batch`` rows, as with guidance."""
        edge = max(8, (size or self.size) // (128 if self.is_small else 8))
        kind = {"device": self.device, "dtype": self.dtype}
        found: dict[str, Any] = {
            "sample": torch.randn(batch, 4, edge, edge, **kind),  # type: ignore[call-overload]
            "timestep": torch.full((batch,), 500, device=self.device),
            "encoder_hidden_states": torch.randn(batch, 77, self.width, **kind),  # type: ignore[call-overload]
        }

        if self.family == "SDXL":
            config = self.unet.config
            text = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            found["added_cond_kwargs"] = {
                "text_embeds": torch.randn(batch, text, **kind),  # type: ignore[call-overload]
                "time_ids": torch.ones(batch, 6, **kind),  # type: ignore[call-overload]
            }

        return found

    def call(self, inputs: dict[str, Any]) -> torch.Tensor:
        """One UNet call."""
        result: torch.Tensor = self.unet(**inputs, return_dict=False)[0]
        return result


@torch.inference_mode(False)
@torch.no_grad()
def built(family: str, dtype: torch.dtype, device: str, is_small: bool) -> Any:
    """A UNet whose weights never were anywhere but on the device; frozen.

    No tensors of inference mode, which no webui has.
    """
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            unet = UNet2DConditionModel(**(SMALL if is_small else FULL)[family])
    finally:
        torch.set_default_dtype(usual)

    unet.to_empty(device=device).eval().requires_grad_(False)
    torch.manual_seed(0)
    for name, parameter in unet.named_parameters():
        if parameter.dim() > 1:  # so that signals neither grow nor vanish
            parameter.normal_(std=(parameter.shape[0] / parameter.numel()) ** 0.5)
        else:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)

    return unet


@torch.inference_mode(False)
@torch.no_grad()
def random_network(
    widths: tuple[int, ...], activation: str, *, layer_norm: bool = False
) -> hn.Hypernetwork:
    """A network of ordinary strength, [1, 2, 1], on the CPU, as it is read from a file."""
    structure = hn.Structure((1, 2, 1), activation, activate_output=False, layer_norm=layer_norm)
    made = hn.Hypernetwork.create("random", structure, widths)
    for parameter in made.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.01)
    return made


def stacks(subject: Subject, names: Sequence[str] | None = None) -> dict[str, Networks]:
    """The networks that are compared, of this UNet's widths; all, or those named."""
    widths = subject.widths

    def made(activation: str, multiplier: float = 0.9, **more: bool) -> tuple[Any, float]:
        return random_network(widths, activation, **more), multiplier

    makers: dict[str, Callable[[], Networks]] = {
        "relu": lambda: [made("relu")],
        "linear": lambda: [made("linear")],
        "three linear": lambda: [made("linear", 0.6) for _ in range(3)],
        "layer norm + swish": lambda: [made("swish", layer_norm=True)],
        "relu, text alone": lambda: [(random_network((subject.width,), "relu"), 0.9)],
    }
    return {name: make() for name, make in makers.items() if names is None or name in names}


def floor(unet: nn.Module, networks: Networks) -> ActiveNetworks:
    """The bare products that can't be avoided, in the UNet's own precision.

    The text's once per call, those of self-attention where they are used, and none for what is
    linear there. What comes out is used as the context, so that no compiler can leave the products
    out.
    """
    weight = next(unet.parameters())
    remembered: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
    pairs = [
        (
            network.structure.is_linear,
            {
                dim: [_matrices(mlp.linear, weight, network.structure.is_linear) for mlp in pair]
                for dim, pair in network.pairs.items()
            },
        )
        for network, _ in networks
    ]

    def products(context: torch.Tensor, side: int, is_self: bool) -> torch.Tensor:
        for is_linear, by_width in pairs:
            if not (is_linear and is_self) and (chosen := by_width.get(context.shape[-1])):
                for matrix in chosen[side]:
                    context = nn.functional.linear(context, matrix)
        return context

    def hook(side: int, is_self: bool) -> Callable[..., tuple[torch.Tensor, ...]]:
        def before(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            context = inputs[0]
            if is_self:
                return (products(context, side, True), *inputs[1:])
            known = remembered.get((side, context.shape[-1]))
            if known is None or known[0] is not context:
                known = remembered[side, context.shape[-1]] = (
                    context,
                    products(context, side, False),
                )
            return (known[1], *inputs[1:])

        return before

    @contextmanager
    def acting() -> Any:
        removers = [unet.register_forward_pre_hook(lambda *_: remembered.clear())]
        removers += [
            projection.register_forward_pre_hook(hook(side, site.kind == "self"))
            for site in find_sites(unet)
            for side, projection in enumerate((site.to_k, site.to_v))
        ]
        try:
            yield
        finally:
            remembered.clear()
            for remover in removers:
                remover.remove()

    return acting


def _matrices(layers: nn.Module, weight: torch.Tensor, is_linear: bool) -> list[torch.Tensor]:
    """What has to be multiplied by, like the weight; one matrix for a linear network."""
    found = [p.detach() for p in layers.parameters() if p.dim() > 1]
    if is_linear:
        found = [torch.linalg.multi_dot(found[::-1])]
    return [matrix.to(weight) for matrix in found]


def ways(unet: nn.Module, networks: Networks) -> dict[str, ActiveNetworks]:
    """The ways to apply one stack: naive, ours, and the floor."""
    return {
        "naive": cases.naive(unet, networks),
        "ours": cases.ours(unet, networks),
        "floor": floor(unet, networks),
    }
