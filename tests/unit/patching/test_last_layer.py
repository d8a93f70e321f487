"""The last layer of a network folded into its projection, which graphics cards do in half
precision: here on a CPU that is taken for one, against the reference.
"""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterator, Sequence

import pytest
import torch
from laws.hosts import Host, Recorder, left_as_it_was
from reference import relative_error, stacked
from torch import nn

import hypernetworks as hn
from hypernetworks.engine.hidden import HiddenLayers
from hypernetworks.engine.prepared import prepared
from hypernetworks.engine.stack import Stack
from hypernetworks.patching import last_layer
from hypernetworks.patching.stand_in import acting_on

TOLERANCES = {torch.float16: 8e-3, torch.bfloat16: 5e-2}
"""As in ``tests/cuda``: of whole projections, computed in half precision throughout."""


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision pays on this CPU, as on a card."""
    monkeypatch.setattr(last_layer, "FUSING", ("cpu",))
    monkeypatch.setattr("hypernetworks.engine.stack.is_on_cpu", lambda _: False)


class Attention(nn.Module):
    """As small as attention can be: it adds keys and values to its queries."""

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = (nn.Linear(context, width, bias=False) for _ in range(2))

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        read = x if context is None else context
        kept = self.to_k(read).mean(dim=1, keepdim=True) * self.to_v(read).mean(dim=1, keepdim=True)
        return self.to_q(x) + kept


class Tiny(nn.Module):
    """Two blocks of a UNet, of widths 16 and 24."""

    def __init__(self) -> None:
        super().__init__()
        names = ("attn1", "attn2")
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {name: Attention(width, CROSS if name == "attn2" else width) for name in names}
            )
            for width in (16, 24)
        )

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = nn.functional.pad(x, (0, block["attn1"].to_q.in_features - x.shape[-1]))
            x = block["attn2"](block["attn1"](x), context)
        return x


CROSS = 12


@pytest.fixture(params=list(TOLERANCES), ids=str)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Law 1 holds after each test."""
    yield from left_as_it_was(tiny(request.param))


def tiny(dtype: torch.dtype) -> Host:
    """In that type, frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        unet = Tiny().to(dtype).requires_grad_(False)
    return Host("tiny", unet, lambda context: unet(started(dtype), context), CROSS)


def started(dtype: torch.dtype) -> torch.Tensor:
    """What the UNet begins with."""
    return torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(9)).to(dtype)


def dtype_of(host: Host) -> torch.dtype:
    return next(host.unet.parameters()).dtype


def self_paths(host: Host, handle: hn.Handle) -> set[str]:
    paths = handle.paths
    return {
        paths[f"{site.path}.{name}"]
        for site in host.sites
        if site.kind == "self"
        for name in ("to_k", "to_v")
    }


def by_context(host: Host, networks: list[tuple[hn.Hypernetwork, float]]) -> torch.Tensor:
    """The same without folding, on a copy, where no other handle is."""
    unet = copy.deepcopy(host.unet)
    with hn.apply(unet, networks, is_dense=lambda _: False):
        return unet(started(dtype_of(host)), host.context())  # type: ignore[no-any-return]


@pytest.mark.parametrize("layers", [(1, 2, 1), (1, 0.5, 3, 1)])
@pytest.mark.parametrize("activation", ["relu", "swish", "softmax"])
def test_every_projection_is_that_of_the_reference(
    host: Host, activation: str, layers: tuple[float, ...]
) -> None:
    content, network = host.network(activation, layer_structure=layers, activate_output=False)
    recorder = Recorder(host)
    with torch.no_grad(), hn.apply(host.unet, [(network, 0.8)]) as handle:
        host.run(host.context())  # the second call has keys and values together
        recorder.watch()
        host.run(host.context())
        assert self_paths(host, handle) == {"folded"}
    recorder.stop()
    for seen in recorder.seen:
        expected = stacked([(content, 0.8)], seen.before.float(), seen.side)
        assert seen.output.dtype == dtype_of(host)
        assert seen.error(expected) <= TOLERANCES[dtype_of(host)]
        assert seen.error(seen.before) > 1e-2
    assert len(recorder.seen) == 2 * len(host.sites)


@torch.no_grad()
@pytest.mark.parametrize("activation", [None, "relu"], ids=str)
def test_nothing_is_looked_for_in_widths_that_no_network_has(
    host: Host, activation: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many networks are for some of a UNet's widths, and the others come up at every call."""
    looked = list[int]()

    def active(stack: Stack, dim: int, multipliers: Sequence[float]) -> object:
        looked.append(dim)
        return found(stack, dim, multipliers)

    found = Stack.active
    monkeypatch.setattr(Stack, "active", active)
    network = host.network(activation, activate_output=False)[1]
    kept = next(site.width for site in host.sites if site.kind == "self")
    for width in set(network.pairs) - {kept}:
        del network.pairs[width]  # type: ignore[attr-defined]
    with hn.apply(host.unet, [(network, 0.8)]) as handle:
        host.run(host.context())
    assert set(looked) == {kept}
    assert set(handle.paths.values()) == {"folded", "untouched"}


@torch.no_grad()
def test_stacks_end_in_it_and_different_sides_have_their_own_multipliers(host: Host) -> None:
    first, last = host.network("tanh", seed=3), host.network("relu", activate_output=False)
    linear = host.network(None, seed=4)
    recorder = Recorder(host)
    stack = [(linear[1], -0.5), (first[1], 0.7), (last[1], "0.4:k=0.5")]
    with hn.apply(host.unet, stack) as handle:
        host.run(host.context())
        recorder.watch()
        host.run(host.context())
        assert self_paths(host, handle) == {"folded"}
    recorder.stop()
    for seen in recorder.seen:
        multiplier = 0.4 if seen.side else 0.2
        parts = [(linear[0], -0.5), (first[0], 0.7), (last[0], multiplier)]
        expected = stacked(parts, seen.before.float(), seen.side)
        assert seen.error(expected) <= 2 * TOLERANCES[dtype_of(host)]


@torch.no_grad()
def test_first_layers_of_keys_and_values_are_one_product_from_the_second_call_on(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, asked = host.network("relu", activate_output=False)[1], list[str]()
    for name in ("of", "of_both"):
        own = getattr(HiddenLayers, name)
        monkeypatch.setattr(
            HiddenLayers,
            name,
            lambda self, *rest, own=own, name=name: asked.append(name) or own(self, *rest),
        )
    count = sum(site.kind == "self" for site in host.sites)
    with hn.apply(host.unet, [(network, 0.8)]):
        first = host.run(host.context())
        assert asked == ["of"] * 2 * count
        asked.clear()
        second = host.run(host.context())
        assert asked == ["of_both"] * count
        assert relative_error(second, first) <= TOLERANCES[dtype_of(host)]
        asked.clear()
        # Inference tensors don't tell whether they are changed between keys and values.
        with torch.inference_mode():
            host.run(host.context())
        assert asked == ["of"] * 2 * count


@torch.no_grad()
def test_nothing_waits_in_a_compiled_graph(host: Host) -> None:
    """It may write other numbers into the same tensor, which nothing counts."""
    network = host.network("relu", activate_output=False)[1]
    site = next(site for site in host.sites if site.kind == "self")
    with hn.apply(host.unet, [(network, 0.8)]) as handle:
        host.run(host.context())
        context = torch.randn(2, 5, site.width or 0).to(dtype_of(host))
        for is_in_graph in (True, False):
            handle.seam.call.begin(None)
            stand_in = acting_on(site.to_k)
            assert stand_in is not None
            key = stand_in.run_in_graph(context) if is_in_graph else site.to_k(context)
            waiting = handle.seam.call.waiting
            assert (waiting is None or waiting[-1] is None) == is_in_graph
            handle.seam.call.end()
    assert key.shape[:2] == (2, 5)


@torch.no_grad()
def test_a_context_that_is_changed_between_keys_and_values_is_read_anew(host: Host) -> None:
    content, network = host.network("relu", activate_output=False)
    site = next(site for site in host.sites if site.kind == "self")
    with hn.apply(host.unet, [(network, 0.8)]) as handle:
        host.run(host.context())
        context = torch.randn(2, 5, site.width or 0).to(dtype_of(host))
        handle.seam.call.begin(None)
        site.to_k(context)
        assert handle.seam.call.waiting is not None
        context.mul_(-1)
        value = site.to_v(context)
        handle.seam.call.end()
        assert handle.seam.call.waiting is None
        expected = site.to_v.weight.float() @ stacked([(content, 0.8)], context.float(), 1).mT
        assert relative_error(value.float(), expected.mT) <= TOLERANCES[dtype_of(host)]


@torch.no_grad()
def test_a_moved_multiplier_takes_no_new_product(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = host.network("relu", activate_output=False)[1]
    with hn.apply(host.unet, [(network, "0.2@0,1@1")]) as handle:
        host.run(host.context())
        kept = set(map(id, prepared(network).folds.values()))
        monkeypatch.setattr(last_layer.Fold, "of", None)
        handle.at(1, 2)
        moved = host.run(host.context())
        assert self_paths(host, handle) == {"folded"}
        assert set(map(id, prepared(network).folds.values())) == kept
    assert relative_error(moved, by_context(host, [(network, 1.0)])) <= TOLERANCES[dtype_of(host)]


@torch.no_grad()
def test_weights_that_change_are_seen_and_too_many_changes_are_not_followed() -> None:
    host = tiny(torch.bfloat16)
    network = host.network("relu", activate_output=False)[1]
    with hn.apply(host.unet, [(network, 0.8)]) as handle:
        host.run(host.context())
        for number in range(last_layer.MOST_CHANGES + 2):
            for site in host.sites:
                site.to_k.weight.data.mul_(-1.2)  # type: ignore[union-attr, operator]
            changed = host.run(host.context())
            expected = by_context(host, [(network, 0.8)])
            assert relative_error(changed, expected) <= TOLERANCES[torch.bfloat16]
            host.run(host.context())
            is_followed = number < last_layer.MOST_CHANGES
            assert self_paths(host, handle) == ({"folded"} if is_followed else {"folded", "input"})


@torch.no_grad()
@pytest.mark.parametrize("reason", ["memory", "no room", "fp32", "norm", "strong", "prelu"])
def test_otherwise_the_context_is_changed(
    reason: str, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "memory":
        monkeypatch.setattr("hypernetworks.patching.seam.FOLDED_BYTES", 0)
    if reason == "no room":

        def refused(*_: object) -> None:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(last_layer.Fold, "of", refused)
    if reason == "fp32":
        host = tiny(torch.float32)
    activation, multiplier = "prelu" if reason == "prelu" else "relu", 0.8
    if reason == "strong":
        monkeypatch.setattr("hypernetworks.engine.stack.LARGEST_HALF", 0.0)
    is_never = not (reason == "strong" and dtype_of(host) is torch.bfloat16)
    network = host.network(activation, activate_output=False, layer_norm=reason == "norm")[1]
    with hn.apply(host.unet, [(network, multiplier)]) as handle:
        result = host.run(host.context())
        assert (self_paths(host, handle) == {"input"}) == is_never
    tolerance = TOLERANCES.get(dtype_of(host), 1e-5)
    assert relative_error(result, by_context(host, [(network, multiplier)])) <= tolerance


def test_under_autocast_it_is_computed_in_autocasts_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in AUTOMATIC1111, whose norms give contexts in fp32 there."""
    host, asked = tiny(torch.bfloat16), list[torch.dtype]()
    content, network = host.network("relu", activate_output=False)
    own = HiddenLayers.of
    monkeypatch.setattr(
        HiddenLayers, "of", lambda self, x, side: asked.append(x.dtype) or own(self, x, side)
    )
    site = next(site for site in host.sites if site.kind == "self")
    context = torch.randn(2, 5, site.width or 0)
    autocast = torch.autocast("cpu", torch.bfloat16)
    with torch.no_grad(), autocast, hn.apply(host.unet, [(network, 0.8)]) as handle:
        key = site.to_k(context)
    assert asked == [torch.bfloat16]
    assert key.dtype is torch.bfloat16
    assert handle.paths == {f"{site.path}.to_k": "folded"}
    expected = stacked([(content, 0.8)], context, 0) @ site.to_k.weight.float().mT  # type: ignore[union-attr]
    assert relative_error(key.float(), expected) <= TOLERANCES[torch.bfloat16]


@torch.no_grad()
def test_release_frees_all_of_it(host: Host) -> None:
    network = host.network("relu", activate_output=False)[1]
    with hn.apply(host.unet, [(network, 0.8)]):
        host.run(host.context())
        host.run(host.context())
    fold = weakref.ref(next(iter(prepared(network).folds.values())).product)
    hidden = weakref.ref(next(iter(prepared(network).hidden.values()))[0].tensors[0])
    assert network.prepared_bytes > 0
    network.release()
    gc.collect()
    assert fold() is None
    assert hidden() is None
    assert network.prepared_bytes == 0
