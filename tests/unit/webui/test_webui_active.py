"""What is active on the UNet: a refiner of another family, and the cost of a generation."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_webui import FakeWebui
from torch import nn
from webui_cards import write_network

import hypernetworks as hn
from hypernetworks.hosts.resolving import Use
from hypernetworks.hosts.webui import active, extra_network, settings
from hypernetworks.library import Entry
from hypernetworks.patching import find_sites, sites
from hypernetworks.prompts import tags


class Attention(nn.Module):
    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (
            nn.Linear(width, 8),
            nn.Linear(context, 8),
            nn.Linear(context, 8),
        )


class Blocks(nn.Module):
    def __init__(self, cross: int) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attention(640, 640), Attention(640, cross)


def use(name: str, *widths: int) -> Use:
    network = hn.Hypernetwork.create(name, hn.Structure(), widths)
    tag = hn.parse(f"<hypernet:{name}:1>")[1][0]
    assert tag.multiplier is not None
    return Use(tag, Entry(name, None, "", 0, 0), network, tag.multiplier)  # type: ignore[arg-type]


@pytest.mark.parametrize("force", [False, True])
def test_networks_of_the_first_models_family_are_left_out(
    force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "force_family", lambda: force)
    sd1, only_self, p = use("one", 640, 768), use("two", 640), SimpleNamespace()
    here = active.ActiveNetworks._fitting(p, find_sites(Blocks(768)), [[sd1, only_self], [sd1]])
    assert here == [[sd1, only_self], [sd1]]
    assert not hasattr(p, "_hypernetwork_messages")
    there = active.ActiveNetworks._fitting(p, find_sites(Blocks(2048)), [[sd1, only_self], [sd1]])
    assert there == ([[sd1, only_self], [sd1]] if force else [[only_self], []])
    if not force:
        (message,) = p._hypernetwork_messages
        assert "<hypernet:one:1>" in message
        assert "SD1" in message
        assert "SDXL" in message


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a prompt was parsed and a UNet was searched, whoever asked for it."""
    counts = Counter[str]()
    parsing, searching = tags._extra_networks, sites._resnets_per_block

    def count_parsing(prompt: str) -> Any:
        counts[f"parse {prompt}"] += 1
        return parsing(prompt)

    def count_searching(unet: nn.Module) -> Any:
        counts["find_sites"] += 1
        return searching(unet)

    monkeypatch.setattr(tags, "_extra_networks", count_parsing)
    monkeypatch.setattr(sites, "_resnets_per_block", count_searching)
    return counts


@pytest.mark.parametrize("prompts", [["a <hypernet:ink:1>"] * 2, ["a <hypernet:ink:1>", "b"]])
def test_a_generation_parses_each_prompt_once_and_searches_the_unet_once(
    prompts: list[str],
    fake_webui: FakeWebui,
    counted: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_network(fake_webui.folder / "ink.pt", (640, 768))
    unet = Blocks(768)
    model = SimpleNamespace(model=SimpleNamespace(diffusion_model=unet))
    monkeypatch.setattr(fake_webui.shared, "sd_model", model, raising=False)
    p: Any = SimpleNamespace(
        all_prompts=prompts, prompts=["a", "a"], negative_prompts=["bad"], batch_size=2, iteration=0
    )
    extra_network.activate(p, [("ink", "1")])
    handle = active.ACTIVE.ensure(p, hires=False)
    try:
        assert handle is not None
        assert not hasattr(p, "_hypernetwork_messages")
        assert counted == {**{f"parse {text}": 1 for text in [*prompts, "bad"]}, "find_sites": 1}
        active.ACTIVE.remove()
        assert active.ACTIVE.ensure(p, hires=False) is not None
        assert counted["find_sites"] == 2, "later in the job, the UNet may have changed"
    finally:
        active.ACTIVE.remove()


@pytest.mark.parametrize(
    "prompts", [["a <hypernet:ink:0@0,1@1>"] * 2, ["a <hypernet:ink:0@0,1@1>", "b"]]
)
def test_networks_act_in_controlnets_as_the_built_in_does(
    prompts: list[str], fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = hn.Hypernetwork.create("ink", hn.Structure(), (640, 768))
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.01)
    fake_webui.folder.mkdir(parents=True, exist_ok=True)
    hn.write(network, fake_webui.folder / "ink.pt")
    unet, controlnet, adapter = Blocks(768), Blocks(768), nn.Linear(2, 2)
    model = SimpleNamespace(model=SimpleNamespace(diffusion_model=unet))
    monkeypatch.setattr(fake_webui.shared, "sd_model", model, raising=False)
    extension = SimpleNamespace(latest_network=None)
    p: Any = SimpleNamespace(
        all_prompts=prompts, prompts=["a", "a"], negative_prompts=["bad"], batch_size=2,
        iteration=0, scripts=SimpleNamespace(alwayson_scripts=[SimpleNamespace(), extension]),
    )  # fmt: skip
    x = torch.randn(1, 5, 768, generator=torch.Generator().manual_seed(0))
    controlnet.requires_grad_(False)
    plain = controlnet.attn2.to_k(x)
    extra_network.activate(p, [("ink", "0@0,1@1")])

    def changed(step: int) -> float:
        active.ACTIVE.before_step(p, step, 2, hires=False, conditions=None)
        return float((controlnet.attn2.to_k(x) - plain).abs().max())

    try:
        assert changed(1) == 0
        # The extension loads its models when the sampling is about to begin.
        units = [SimpleNamespace(control_model=m) for m in (controlnet, adapter, controlnet, None)]
        extension.latest_network = SimpleNamespace(control_params=units)
        is_mixed = prompts[0] != prompts[1]
        assert (changed(1) > 0) != is_mixed
        assert changed(0) == 0
        assert (changed(1) > 0) != is_mixed
        extension.latest_network = None
        assert changed(1) == 0
    finally:
        active.ACTIVE.remove()
    assert not any("forward" in vars(module) for module in controlnet.modules())
