"""Law 11 for compiled UNets: whatever happens to one between two calls, the next is right.

Run by ``test_compiled_unets.py`` in a process of its own.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from laws.changing import call, load_lora, wanted
from laws.hosts import Host
from laws.small_ldm import CONTEXT, CrossAttention
from laws.test_law_11 import ChangingUNet, run_machine
from reference import relative_error

import hypernetworks as hn


class Least(nn.Module):
    """Two attention modules, and no more that a UNet has: it is compiled hundreds of times."""

    def __init__(self) -> None:
        super().__init__()
        self.attn1, self.attn2 = CrossAttention(8), CrossAttention(8, CONTEXT)
        self.conv_in, self.conv_out = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, times: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """``(batch, 4, height, width)`` -> the same."""
        hidden = self.conv_in(x.flatten(2).transpose(1, 2))
        hidden = hidden + self.attn1(hidden)
        hidden = hidden + self.attn2(hidden, context=context)
        return self.conv_out(hidden).transpose(1, 2).unflatten(2, x.shape[2:])  # type: ignore[no-any-return]


def least() -> nn.Module:
    torch.manual_seed(0)
    return Least().eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def _compiles_anew() -> Iterator[None]:
    config: Any = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    # After its limit, torch would quietly run the rest without compiling it.
    with config.patch({limit: 1000}):
        yield
    torch._dynamo.reset()


def in_place(unet: nn.Module) -> nn.Module:
    unet.compile(backend="eager")
    return unet


def as_wrapper(unet: nn.Module) -> nn.Module:
    return torch.compile(unet, backend="eager")  # type: ignore[return-value]


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "in place": in_place,
    "wrapper": as_wrapper,
    "whole": lambda unet: torch.compile(unet, backend="eager", fullgraph=True),  # type: ignore[return-value]
}


class CompiledUNet(ChangingUNet):
    """The same, of a UNet that is compiled first, or in the middle."""

    checkpointed = replica = None  # type: ignore[assignment]  # torch doesn't compile these

    @initialize(way=st.sampled_from(list(WAYS)))
    def begin(self, way: str) -> None:  # type: ignore[override]
        """A compiled UNet without networks."""
        self.unet = least()
        self.outer = WAYS[way](self.unet)
        self.acting = []

    @rule()
    def compiled_again(self) -> None:
        """Compiled in place, with or without networks."""
        if self.outer is self.unet:
            in_place(self.unet)

    def teardown(self) -> None:
        """Nothing is left, of the graphs neither."""
        super().teardown()
        torch._dynamo.reset()


def test_law_11_of_compiled_unets() -> None:
    run_machine(CompiledUNet, 3, 6)


@pytest.mark.skipif(shutil.which("g++") is None and sys.platform != "win32", reason="no compiler")
@torch.no_grad()
def test_one_sequence_with_the_default_backend() -> None:
    unet = least()
    host = Host("least", unet, lambda context: call(unet, context), CONTEXT)
    content, network = host.network("relu")
    outer = torch.compile(unet, fullgraph=True)
    with hn.apply(outer, [(network, 0.8)]) as handle:  # type: ignore[arg-type]
        for change in (lambda _: None, load_lora):
            change(unet)
            right = wanted(unet, [(content, 0.8)], host.context())
            assert relative_error(call(outer, host.context()), right) <= 1e-4  # type: ignore[arg-type]
        assert set(handle.paths.values()) == {"input"}
    right = wanted(unet, [], host.context())
    assert relative_error(call(outer, host.context()), right) <= 1e-4  # type: ignore[arg-type]
