"""Projections that A1111's LoRA extension has changed: asking about one has no effect on it."""

from __future__ import annotations

from types import FunctionType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import hypernetworks as hn
from hypernetworks.hosts.webui.dense import apply_lora, is_dense
from hypernetworks.patching import apply_at

TORCHS = nn.Linear.forward


def network_Linear_forward(self: Any, x: Any) -> Any:  # noqa: N802
    network_apply_weights(self)  # type: ignore[name-defined]  # noqa: F821
    return originals.Linear_forward(self, x)  # type: ignore[name-defined]  # noqa: F821


def add_one(module: nn.Linear) -> None:
    """What a LoRA does at the first call after it was loaded."""
    if not hasattr(module, "network_current_names"):
        module.network_current_names = ("lora",)  # type: ignore[assignment]
        module.weight.data += 1


@pytest.fixture
def shared() -> SimpleNamespace:
    return SimpleNamespace(opts=SimpleNamespace(lora_functional=False))


@pytest.fixture
def linear(shared: SimpleNamespace) -> type[nn.Linear]:
    """A linear layer with the extension's forward, whose globals are the extension's."""
    forward = FunctionType(
        network_Linear_forward.__code__,
        {
            "shared": shared,
            "network_apply_weights": add_one,
            "originals": SimpleNamespace(Linear_forward=TORCHS),
        },
        "network_Linear_forward",
    )
    return type("Linear", (nn.Linear,), {"forward": forward})


def test_asking_changes_nothing(linear: type[nn.Linear]) -> None:
    layer = linear(4, 4)
    before = layer.weight.clone()
    assert is_dense(layer)
    assert torch.equal(layer.weight, before)
    apply_lora(layer)
    assert torch.equal(layer.weight, before + 1)


def test_a_lora_that_leaves_weights_alone_is_not_dense(
    linear: type[nn.Linear], shared: SimpleNamespace
) -> None:
    shared.opts.lora_functional = True
    assert not is_dense(linear(4, 4))


def test_torchs_own_layers_need_nothing() -> None:
    layer = nn.Linear(4, 4)
    before = layer.weight.clone()
    assert is_dense(layer)
    apply_lora(layer)
    assert torch.equal(layer.weight, before)


class UNet(nn.Module):
    """One self-attention."""

    def __init__(self, linear: type[nn.Linear]) -> None:
        super().__init__()
        self.attn1 = nn.Module()
        self.attn1.to_q, self.attn1.to_k, self.attn1.to_v = (
            linear(16, 16, bias=False) for _ in range(3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attn1.to_k(x) * self.attn1.to_v(x)  # type: ignore[operator, no-any-return]


@torch.no_grad()
def test_a_folded_layer_has_its_lora(linear: type[nn.Linear]) -> None:
    torch.manual_seed(0)
    unet, network = UNet(linear), hn.Hypernetwork.create("a", hn.Structure(), (16,))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(1, 64, 16)
    with apply_at(unet, None, [[(network, 1.0)]], is_dense=is_dense, prepare=apply_lora) as handle:
        folded = unet(x)
        assert set(handle.paths.values()) == {"folded"}
    with hn.apply(unet, [(network, 1.0)], is_dense=lambda _: False) as handle:
        expected = unet(x)
        assert set(handle.paths.values()) == {"input"}
    torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-4)
