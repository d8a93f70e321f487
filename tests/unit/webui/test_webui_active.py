"""A refiner of another model family: networks of the first model don't act on it by halves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

import hypernetworks as hn
from hypernetworks.hosts.resolving import Use
from hypernetworks.hosts.webui import active, settings
from hypernetworks.library import Entry


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
    here = active.ActiveNetworks._fitting(p, Blocks(768), [[sd1, only_self], [sd1]])
    assert here == [[sd1, only_self], [sd1]]
    assert not hasattr(p, "_hypernetwork_messages")
    there = active.ActiveNetworks._fitting(p, Blocks(2048), [[sd1, only_self], [sd1]])
    assert there == ([[sd1, only_self], [sd1]] if force else [[only_self], []])
    if not force:
        (message,) = p._hypernetwork_messages
        assert "<hypernet:one:1>" in message
        assert "SD1" in message
        assert "SDXL" in message
