"""Compiled UNets: networks come and go, compiled before or after.

Run by ``test_compiled_unets.py`` in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from laws import test_diffusers_models as models
from laws.changing import attentions, call, fuse_lora, load_lora, pack, unload_lora, wanted
from laws.hosts import Host
from laws.small_ldm import CONTEXT, CrossAttention, SpatialTransformer
from reference import relative_error

import hypernetworks as hn
from hypernetworks.patching.handle import MARK


class Tiny(nn.Module):
    """Two transformers, and no more that a UNet has: compiling takes long."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in, self.conv_out = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 1)
        self.blocks = nn.ModuleList([SpatialTransformer(8) for _ in range(2)])

    def forward(self, x: torch.Tensor, times: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """``(batch, 4, height, width)`` -> the same."""
        x = self.conv_in(x)
        for block in self.blocks:
            x = block(x, context)
        return self.conv_out(x)  # type: ignore[no-any-return]


@pytest.fixture
def small() -> Iterator[Host]:
    torch.manual_seed(0)
    unet = Tiny().eval().requires_grad_(False)
    with torch.no_grad():
        yield Host("tiny", unet, lambda c: call(unet, c), CONTEXT)
    torch._dynamo.reset()


class Graphs:
    """A backend that compiles nothing, and counts what it would have compiled."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        """What dynamo calls."""
        self.count += 1
        return graph.forward


@pytest.mark.parametrize(
    ("first", "way", "whole"),
    [
        ("compile", "wrapper", True),
        ("compile", "in place", True),
        ("compile", "blocks", True),
        ("apply", "wrapper", False),
        ("apply", "in place", True),
        ("apply", "blocks", True),
    ],
)
def test_compiled_unets(small: Host, way: str, first: str, whole: bool) -> None:
    """With ``whole``, a graph that ends at a network would be an error."""
    unet, context, base = small.unet, small.context(), call(small.unet, small.context())
    contents = {kind: small.network(kind) for kind in (None, "relu")}
    expected = {k: wanted(unet, [(c, 0.8)], context) for k, (c, _) in contents.items()}
    half = {k: wanted(unet, [(c, 0.4)], context) for k, (c, _) in contents.items()}
    graphs = Graphs()

    def compiled() -> nn.Module:
        if way == "wrapper":
            return torch.compile(unet, backend=graphs, fullgraph=whole)  # type: ignore[return-value]
        for module in [unet] if way == "in place" else unet.blocks:  # type: ignore[union-attr]
            module.compile(backend=graphs, fullgraph=whole)
        return unet

    made = compiled() if first == "compile" else unet
    if first == "compile":
        assert relative_error(call(made, context), base) <= 1e-5
        assert graphs.count == 1
    for kind in (None, "relu", None):
        with hn.apply(made, [(contents[kind][1], "0.8@0,0.4@1")]) as handle:
            if first == "apply" and graphs.count == 0:
                made = compiled()
            assert relative_error(call(made, context), expected[kind]) <= 1e-4
            before = graphs.count
            for step in (1, 0):
                handle.at(step, 2)
                right = (expected, half)[step][kind]
                assert relative_error(call(made, context), right) <= 1e-4
            assert graphs.count == before, "a multiplier that moves costs no compilation"
            assert set(handle.paths.values()) == ({"input"} if kind else {"folded", "input"})
        assert relative_error(call(made, context), base) <= 1e-5
    assert 3 <= graphs.count <= 4, "at most one for each kind, one without, and one before"
    for one in (made, unet):
        assert not {MARK, "compile"} & vars(one).keys()
        assert "Around" not in repr(vars(one).get("_compiled_call_impl"))


def test_compiled_attention_that_goes_round_its_projections_is_reported(small: Host) -> None:
    def around(self: CrossAttention, x: torch.Tensor, context: torch.Tensor | None = None):  # type: ignore[no-untyped-def]
        context = x if context is None else context
        key, value = (context @ p.weight.T for p in (self.to_k, self.to_v))
        return self.to_out(nn.functional.scaled_dot_product_attention(self.to_q(x), key, value))

    attention = attentions(small.unet)[3]
    attention.forward = around.__get__(attention)  # type: ignore[method-assign]
    made = torch.compile(small.unet, backend=Graphs())
    with hn.apply(made, [(small.network()[1], 1)]):  # type: ignore[arg-type]
        with pytest.warns(UserWarning, match="1 attention modules of the UNet, such as .*attn2"):
            call(made, small.context())  # type: ignore[arg-type]
        call(made, small.context())  # type: ignore[arg-type]


def test_a_second_compiled_copy_says_what_it_cannot_notice(small: Host) -> None:
    """Only the first one's calls are noticed: it was given to ``apply``."""
    content, network = small.network("relu")
    first, second = (torch.compile(small.unet, backend=Graphs()) for _ in range(2))
    with hn.apply(first, [(network, 0.8)]):  # type: ignore[arg-type]
        right = wanted(small.unet, [(content, 0.8)], small.context())
        assert relative_error(call(second, small.context()), right) <= 1e-4  # type: ignore[arg-type]
        load_lora(small.unet)
        with pytest.raises(Exception, match="apply was given"):
            call(second, small.context())  # type: ignore[arg-type]


def test_in_a_compiled_graph_only_what_the_unet_was_given_is_remembered(small: Host) -> None:
    """Intermediates are in memory that the compiler uses again, which no counter sees."""
    content, network = small.network("relu")
    seen: list[tuple[bool, int]] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        def run(*inputs: object) -> object:
            result = graph.forward(*inputs)
            seen.append((handle.seam.call.is_compiled, len(handle.seam.call.remembered)))
            return result

        return run

    for scaled in (False, True):
        torch._dynamo.reset()
        unet = Scaling(small.unet) if scaled else small.unet
        made = torch.compile(unet, backend=backend)
        with hn.apply(made, [(network, 0.8)]) as handle:  # type: ignore[arg-type]
            got = call(made, small.context())  # type: ignore[arg-type]
        expected = wanted(small.unet, [(content, 0.8)], small.context() * (2 if scaled else 1))
        assert relative_error(got, expected) <= 1e-4
    assert seen == [(True, 2), (True, 0)]


class Scaling(nn.Module):
    """A UNet that changes its context before its layers see it."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: torch.Tensor, times: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """The UNet's, on twice the context."""
        return self.unet(x, times, context=context * 2)  # type: ignore[no-any-return]


def test_compiled_blocks_of_diffusers() -> None:
    """What ``compile_repeated_blocks`` does: one graph for all blocks of the same shape."""
    unet, graphs = models.sd1(block_out_channels=(8, 8)), Graphs()
    content, made = models.network("relu", 8, models.CROSS)
    with torch.no_grad():
        right = models.expected(unet, models.spatial(unet), content, models.run_sd1)
        with hn.apply(unet, [(made, 0.8)]):
            unet.compile_repeated_blocks(backend=graphs, fullgraph=True)  # type: ignore[operator]
            assert relative_error(models.run_sd1(unet), right) <= 1e-4
    assert graphs.count <= 3, "two sizes of the image, and those alike"
    torch._dynamo.reset()


def test_a_unet_of_compiled_blocks_that_changes(small: Host) -> None:
    """Law 11 by instances, each of which compiles them anew; compiled UNets have a machine."""
    content, network = small.network("relu")
    unet = small.unet
    for block in unet.blocks:  # type: ignore[union-attr]
        block.compile(backend="eager")

    with hn.apply(unet, [(network, 0.8)]):
        for change in (load_lora, fuse_lora, unload_lora, lambda u: pack(u, torch.int8)):
            change(unet)
            right = wanted(unet, [(content, 0.8)], small.context())
            for _ in range(2):
                assert relative_error(call(unet, small.context()), right) <= 1e-4
    right = wanted(unet, [], small.context())
    assert relative_error(call(unet, small.context()), right) <= 1e-4
