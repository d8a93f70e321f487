"""What only Forge Neo does: compiling during a call, LoRA and storage types in linear layers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_webui import FakeWebui
from torch import nn
from webui_cards import write_network

from hypernetworks.hosts.webui import compiled, extra_network
from hypernetworks.hosts.webui.active import ACTIVE
from hypernetworks.hosts.webui.dense import is_dense


class ForgeOperations:
    """Neo's: a subclass of torch's, unlike Forge's."""

    class Linear(nn.Linear):
        parameters_manual_cast = False
        weight_function: list[Any] = []  # noqa: RUF012 - as it is there
        bias_function: list[Any] = []  # noqa: RUF012

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.weight, self.bias)


class ForgeOperationsFP8(ForgeOperations):
    class Linear(ForgeOperations.Linear):
        pass


for _name, _class in (
    ("ForgeOperations", ForgeOperations),
    ("ForgeOperationsFP8", ForgeOperationsFP8),
):
    _class.Linear.__qualname__ = f"{_name}.Linear"


@pytest.mark.parametrize(
    ("changes", "dense"),
    [
        ({}, True),
        ({"parameters_manual_cast": True}, False),  # stored as fp8, cast at each call
        ({"weight_function": [lambda weight: weight]}, False),  # a LoRA applied at each call
        ({"bias_function": [lambda bias: bias]}, False),
    ],
)
def test_only_plain_layers_are_folded(changes: dict[str, Any], dense: bool) -> None:
    layer = ForgeOperations.Linear(4, 4)
    vars(layer).update(changes)
    assert is_dense(layer) is dense
    assert not is_dense(ForgeOperationsFP8.Linear(4, 4)), "it may multiply in fp8"


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in ("to_q", "to_k", "to_v"):
            setattr(self, name, ForgeOperations.Linear(768, 8))


@pytest.mark.parametrize("fake_webui", ["forge"], indirect=True)
def test_a_model_that_is_compiled_during_the_call_runs_eagerly(
    fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_network(fake_webui.folder / "ink.pt", (768,))
    undone: list[str] = []
    monkeypatch.setattr(compiled, "run_eagerly", lambda: lambda: undone.append("compiled again"))
    unet = nn.Module()
    unet.attn2 = Attention()
    kmodel = SimpleNamespace(diffusion_model=unet)
    model = SimpleNamespace(forge_objects=SimpleNamespace(unet=SimpleNamespace(model=kmodel)))
    monkeypatch.setattr(fake_webui.shared, "sd_model", model, raising=False)
    p: Any = SimpleNamespace(
        all_prompts=["<hypernet:ink:1>"],
        prompts=[""],
        negative_prompts=[],
        batch_size=1,
        iteration=0,
    )

    extra_network.activate(p, [("ink", "1")])
    try:
        assert not hasattr(p, "_hypernetwork_messages")
        kmodel._torch_compile_config = ("dynamic",)  # its script runs after the tags
        for step in range(2):
            ACTIVE.before_step(p, step, 2, hires=False, conditions=None)
        (message,) = p._hypernetwork_messages
        assert "uncompiled" in message
        assert undone == []
    finally:
        ACTIVE.remove()
    assert undone == ["compiled again"]
