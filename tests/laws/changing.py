"""UNets that change under an applied handle, and what the next call must then give, computed
without this project.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from laws.small_ldm import CrossAttention
from reference import Content, stacked
from torch import nn

TIMES = torch.tensor([7.0, 7.0])


class LoraLayer(nn.Module):
    """A projection with a LoRA, wrapped as peft does it: the layer itself is kept as
    ``base_layer``.
    """

    def __init__(self, base_layer: nn.Module, seed: int = 0, rank: int = 2) -> None:
        super().__init__()
        self.base_layer = base_layer
        weight = base_weight(base_layer)
        like = getattr(base_layer, "scale", weight)  # packed weights have another type
        drawn = torch.Generator().manual_seed(seed)
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1], generator=drawn).to(like) / 2)
        self.up = nn.Parameter(torch.randn(weight.shape[0], rank, generator=drawn).to(like) / 2)
        self.requires_grad_(False)
        self.merged = False

    @property
    def weight(self) -> torch.Tensor:
        """That of the layer, as in peft."""
        return self.base_layer.weight  # type: ignore[return-value]

    def forward(self, x: torch.Tensor, *others: object, **named: object) -> torch.Tensor:
        """The layer and, unless it is merged, the LoRA."""
        result: torch.Tensor = self.base_layer(x, *others, **named)
        return result if self.merged else result + x @ self.down.T @ self.up.T

    def fuse(self, sign: float = 1.0) -> None:
        """Merge it into the weight, or out of it, through ``.data``, which no version counter
        sees.
        """
        if self.weight.dtype not in (torch.float32, torch.float64):  # packed ones are refused
            return
        self.weight.data += sign * (self.up @ self.down)
        self.merged = sign > 0


class Packed(nn.Module):
    """A projection whose weight is stored as int8 with a scale per row, as bitsandbytes and GGUF
    do it, or as fp8.
    """

    def __init__(self, layer: nn.Module, storage: torch.dtype) -> None:
        super().__init__()
        weight = base_weight(layer).detach()
        self.out_features, self.in_features = weight.shape
        scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-6)
        self.register_buffer("scale", scale / (127 if storage is torch.int8 else 1))
        stored = weight / self.scale
        stored = stored.round() if storage is torch.int8 else stored
        self.weight = nn.Parameter(stored.to(storage), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product with the weight that the stored numbers stand for."""
        scale: torch.Tensor = self.scale  # type: ignore[assignment]
        return nn.functional.linear(x, self.weight.to(scale.dtype) * scale)


class Coded(torch.Tensor):
    """A weight that isn't what its numbers say, as those of torchao and quanto: only ``F.linear``
    knows the scale.
    """

    SCALE = 4.0

    @classmethod
    def of(cls, weight: torch.Tensor) -> Coded:
        """The same weight, coded."""
        return (weight.detach() / cls.SCALE).as_subclass(cls)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        with torch._C.DisableTorchFunctionSubclass():
            if function is nn.functional.linear:
                args = (args[0], args[1] * cls.SCALE, *args[2:])
            return function(*args, **(kwargs or {}))

    def __deepcopy__(self, memo: dict[int, object]) -> Coded:
        return self.as_subclass(torch.Tensor).clone().as_subclass(Coded)


def code(unet: nn.Module) -> None:
    """Give all plain projections coded weights."""
    for attention in attentions(unet):
        for layer in (attention.to_k, attention.to_v):
            if type(layer) is nn.Linear:
                vars(layer)["_parameters"]["weight"] = Coded.of(layer.weight)


def pack(unet: nn.Module, storage: torch.dtype) -> None:
    """Quantise all plain projections."""
    for attention in attentions(unet):
        for name in ("to_k", "to_v"):
            if type(layer := getattr(attention, name)) is nn.Linear:
                setattr(attention, name, Packed(layer, storage))


def replicated(module: nn.Module) -> nn.Module:
    """As :func:`torch.nn.parallel.replicate` makes one: attributes shared, parameters of its
    own.
    """
    replica = module._replicate_for_data_parallel()  # type: ignore[operator]
    for name, child in module._modules.items():
        replica._modules[name] = replicated(child)  # type: ignore[arg-type]
    for name, parameter in module._parameters.items():
        vars(replica)["_parameters"].pop(name, None)
        vars(replica)[name] = None if parameter is None else parameter.detach().clone()
    return replica  # type: ignore[no-any-return]


def base_weight(module: nn.Module) -> torch.Tensor:
    """The weight below any LoRAs."""
    while isinstance(module, LoraLayer):
        module = module.base_layer
    return module.weight  # type: ignore[return-value]


def attentions(unet: nn.Module) -> list[CrossAttention]:
    return [module for module in unet.modules() if isinstance(module, CrossAttention)]


def load_lora(unet: nn.Module, seed: int = 0) -> None:
    for attention in attentions(unet):
        for name in ("to_k", "to_v"):
            setattr(attention, name, LoraLayer(getattr(attention, name), seed))


def unload_lora(unet: nn.Module) -> None:
    for attention in attentions(unet):
        for name in ("to_k", "to_v"):
            layer = getattr(attention, name)
            if isinstance(layer, LoraLayer):
                setattr(attention, name, layer.base_layer)


def fuse_lora(unet: nn.Module, sign: float = 1.0) -> None:
    for module in unet.modules():
        if isinstance(module, LoraLayer) and module.merged == (sign < 0):
            module.fuse(sign)


def call(unet: nn.Module, context: torch.Tensor) -> torch.Tensor:
    drawn = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(99))
    return unet(drawn.to(context.dtype), TIMES, context=context)  # type: ignore[no-any-return]


def wanted(
    unet: nn.Module, networks: Sequence[tuple[Content, float]], context: torch.Tensor
) -> torch.Tensor:
    """What the UNet gives as it is now, with AUTOMATIC1111's formula in every layer of a copy of
    it.
    """
    copied = copy.deepcopy(unet)
    for module in copied.modules():  # whatever the copy may have taken over
        vars(module).pop("forward", None)
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
    for attention in attentions(copied):
        for side, projection in ((0, attention.to_k), (1, attention.to_v)):
            projection.register_forward_pre_hook(
                lambda _, given, side=side: (
                    stacked(networks, given[0].float(), side).to(given[0].dtype),
                )
            )
    return call(copied, context)
