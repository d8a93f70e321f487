"""The ten laws of patching, and what else an applied handle owes, on an ldm UNet and three of
diffusers."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch
from laws.hosts import HOSTS, Host, Recorder, hooks, make, traces
from laws.small_ldm import CrossAttention
from reference import Content, relative_error, stacked
from torch import nn

import hypernetworks as hn
from hypernetworks.engine.multiplier import BLOCKS_SD1, BLOCKS_SDXL, format_number
from hypernetworks.errors import (
    HypernetworkError,
    MultiplierError,
    NoAttentionError,
    NoMatchingWidthError,
    PatchError,
    TagError,
)
from hypernetworks.patching import find_sites
from hypernetworks.patching.handle import MARK

KINDS = pytest.mark.parametrize("activation", ["folded", "linear", "relu"], indirect=True)
"""Linear networks, folded at once or never, and others act in different ways; the laws are the
same."""

OF_DIFFUSERS = {name: pytest.param(name, marks=pytest.mark.slow) for name in HOSTS if name != "ldm"}
FEW = pytest.mark.parametrize("host", ["ldm", OF_DIFFUSERS["sdxl"]], indirect=True)
"""The two that differ most, where four would only take longer."""

_made: dict[str, Host] = {}


@pytest.fixture(params=["ldm", *OF_DIFFUSERS.values()])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """One of the UNets. Every test gives it back as it was: that is law 1, held by the fixture."""
    if request.param not in _made:
        _made[request.param] = make(request.param)
    one = _made[request.param]
    before = traces(one.unet)
    yield one
    left = traces(one.unet) != before
    if left:
        del _made[request.param]
    assert not left, "a test left traces on the UNet"


@pytest.fixture
def activation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """That of the network under test; a linear one is folded at its first use, or never."""
    if request.param == "folded":
        monkeypatch.setattr("hypernetworks.patching.folded._REFOLD_ROWS", {"cpu": 1})
    else:
        monkeypatch.setattr(
            "hypernetworks.patching.folded.FoldedProjection._made_ready", lambda *_: None
        )
    return request.param if request.param == "relu" else None


@pytest.fixture
def ldm() -> Host:
    """A UNet of its own, for tests that ruin it."""
    return make("ldm")


def proven(host: Host, base: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """The UNet's output, which a patch must have changed (law 3)."""
    changed = host.run(context)
    assert bool(torch.isfinite(changed).all())
    assert relative_error(changed, base) > 1e-3, "the patch changes nothing"
    return changed


# The laws


@KINDS
def test_law_1_apply_then_remove_leaves_nothing(host: Host, activation: str | None) -> None:
    context, before = host.context(), traces(host.unet)
    base = host.run(context)
    assert torch.equal(host.run(context), base), "the UNet itself repeats"
    handle = hn.apply(host.unet, [(host.network(activation)[1], 0.8)])
    proven(host, base, context)
    handle.remove()
    assert traces(host.unet) == before
    assert MARK not in vars(host.unet)
    assert torch.equal(host.run(context), base)


@KINDS
def test_law_2_twice_is_once(host: Host, activation: str | None) -> None:
    context, networks = host.context(), [(host.network(activation)[1], 0.8)]
    base = host.run(context)
    with hn.apply(host.unet, networks):
        once, hooks_of_one = proven(host, base, context), hooks(host.unet)
        with hn.apply(host.unet, networks):
            assert torch.equal(host.run(context), once)
            assert hooks(host.unet) == hooks_of_one
        assert torch.equal(host.run(context), once)
    assert torch.equal(host.run(context), base)


@FEW
@pytest.mark.parametrize("multiplier", [0, 0.0, "0", "0@0,0@1", "1:k=0:v=0", "1:lbw=NONE"])
def test_law_4_multiplier_0_is_the_identity_and_has_no_hooks(
    host: Host, multiplier: float | str
) -> None:
    if host.name == "sdxl" and "lbw" in str(multiplier):
        multiplier = "1:lbw=" + ",".join("0" * 11)
    context, network = host.context(), host.network()[1]
    base, without = host.run(context), hooks(host.unet)
    with hn.apply(host.unet, [(network, 1)]):
        proven(host, base, context)
        assert hooks(host.unet) > without
    with hn.apply(host.unet, [(network, multiplier)]):
        assert hooks(host.unet) == without
        assert torch.equal(host.run(context), base)
    with hn.apply(host.unet, []):
        assert hooks(host.unet) == without


@FEW
def test_law_4_multiplier_0_at_one_step_hands_the_same_object_on(host: Host) -> None:
    recorder = Recorder(host)
    with hn.apply(host.unet, [(host.network()[1], "0@0,1@1")]) as handle:
        recorder.watch()
        host.run(host.context())
        assert all(seen.after is seen.before for seen in recorder.seen)
        recorder.seen.clear()
        handle.at(1, 2)
        host.run(host.context())
        assert not any(seen.after is seen.before for seen in recorder.seen)
    recorder.stop()


@FEW
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_law_5_removal_in_any_order(host: Host, order: tuple[int, ...]) -> None:
    context, before = host.context(), traces(host.unet)
    networks = [
        [(host.network(activation, seed)[1], 0.7)]
        for seed, activation in enumerate((None, "relu", "gelu"))
    ]
    base, alone = host.run(context), []
    for network in networks:
        with hn.apply(host.unet, network):
            alone.append(proven(host, base, context))
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(alone, 2))
    handles = [hn.apply(host.unet, network) for network in networks]
    left = [0, 1, 2]
    for index in order:
        assert torch.equal(host.run(context), alone[left[-1]]), "the latest acts"
        handles[index].remove()
        handles[index].remove()
        left.remove(index)
    assert torch.equal(host.run(context), base)
    assert traces(host.unet) == before


class Breaks:
    """A hook that raises in the middle of a UNet call, once."""

    def __init__(self, host: Host, error: type[BaseException]) -> None:
        self.error = error
        self.remover = host.sites[len(host.sites) // 2].to_v.register_forward_hook(self)

    def __call__(self, *_: object) -> None:
        self.remover.remove()
        raise self.error("in the middle")


ERRORS = pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])


@FEW
@ERRORS
@KINDS
def test_law_6_an_error_in_the_middle_restores(
    host: Host, activation: str | None, error: type[BaseException]
) -> None:
    context, before = host.context(), traces(host.unet)
    base = host.run(context)

    def generate() -> None:
        with hn.apply(host.unet, [(host.network(activation)[1], 1)]):
            proven(host, base, context)
            Breaks(host, error)
            host.run(context)

    with pytest.raises(error, match="in the middle"):
        generate()
    assert traces(host.unet) == before
    assert torch.equal(host.run(context), base)


@FEW
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@KINDS
def test_law_7_dtype_and_device_come_back(
    host: Host, activation: str | None, dtype: torch.dtype
) -> None:
    content, network = host.network(activation)
    host.unet.to(dtype)
    try:
        base, recorder = host.run(host.context()), Recorder(host)
        with hn.apply(host.unet, [(network, 0.5)]):
            recorder.watch()
            assert proven(host, base, host.context()).dtype == dtype
        recorder.stop()
    finally:
        host.unet.to(torch.float32)
        _made[host.name] = make(host.name)
    assert len(recorder.seen) == 2 * len(host.sites)
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    for seen in recorder.seen:
        assert (seen.after.dtype, seen.after.device, seen.after.shape) == (
            dtype,
            seen.before.device,
            seen.before.shape,
        )
        assert seen.output.dtype == dtype
        assert seen.error(stacked([(content, 0.5)], seen.before.float(), seen.side)) <= tolerance
    assert network.dtype == torch.float32, "the network keeps its own"


def test_law_8_no_width_matches(host: Host) -> None:
    foreign = hn.Hypernetwork.create("foreign", hn.Structure(), (7, 9))
    before = traces(host.unet)
    with pytest.raises(NoMatchingWidthError, match="made for another model") as caught:
        hn.apply(host.unet, [(foreign, 1)])
    assert "[7, 9]" in str(caught.value)
    assert str(sorted(host.widths)) in str(caught.value)
    assert isinstance(caught.value, PatchError)
    assert traces(host.unet) == before


def test_law_8_some_match_and_the_rest_is_listed(host: Host) -> None:
    network = host.network()[1]
    missing = host.widths[0]
    del network.pairs[missing]
    network.pairs |= hn.Hypernetwork.create("x", network.structure, (7, 9)).pairs
    base, recorder = host.run(host.context()), Recorder(host)
    with hn.apply(host.unet, [(network, 1)]) as handle:
        recorder.watch()
        proven(host, base, host.context())
        assert f"model widths without a network: {missing};" in repr(handle)
        assert "network widths without a place: 7, 9" in repr(handle)
    recorder.stop()
    for seen in recorder.seen:
        assert (seen.after is seen.before) == (seen.site.width == missing)


def test_law_9_the_random_state_is_untouched(host: Host) -> None:
    network = host.network("rrelu", dropout=(0, 0.5, 0))[1]
    host.run(host.context())
    state = torch.random.get_rng_state()
    with hn.apply(host.unet, [(network, 1)]) as handle:
        handle.at(0, 3)
        first = host.run(host.context())
        assert torch.equal(host.run(host.context()), first)
    assert torch.equal(torch.random.get_rng_state(), state)


def failing(host: Host) -> dict[str, tuple[type[HypernetworkError], Callable[[], object]]]:
    """Ways to fail, each with the error."""
    network, wrong = host.network()[1], hn.Hypernetwork.create("x", hn.Structure(), (7,))
    other = 16 if host.name == "sdxl" else 11
    return {
        "width": (NoMatchingWidthError, lambda: hn.apply(host.unet, [(wrong, 1)])),
        "multiplier": (
            MultiplierError,
            lambda: hn.apply(host.unet, [(network, 1), (network, "x")]),
        ),
        "blocks": (
            TagError,
            lambda: hn.apply(host.unet, [(network, "1:lbw=" + ",".join("1" * other))]),
        ),
        "no attention": (
            NoAttentionError,
            lambda: hn.apply(nn.Sequential(nn.Linear(8, 8)), [(network, 1)]),
        ),
    }


@FEW
@pytest.mark.parametrize("case", ["width", "multiplier", "blocks", "no attention"])
def test_law_10_everything_is_checked_before_anything_is_changed(host: Host, case: str) -> None:
    error, attempt = failing(host)[case]
    context, base = host.context(), host.run(host.context())
    with hn.apply(host.unet, [(host.network(None)[1], 1)]) as handle:
        patched, acting = proven(host, base, context), traces(host.unet)
        with pytest.raises(error):
            attempt()
        assert traces(host.unet) == acting, "what acted before still acts"
        assert torch.equal(host.run(context), patched)
        assert "; active" in repr(handle)
    with pytest.raises(error):
        attempt()
    assert MARK not in vars(host.unet)


# The arithmetic at the seam


@pytest.mark.slow
@KINDS
def test_every_projection_gets_what_the_reference_computes(
    host: Host, activation: str | None
) -> None:
    content, network = host.network(activation, layer_norm=activation is not None)
    other_content, other = host.network("tanh", seed=3)
    recorder = Recorder(host)
    with hn.apply(host.unet, [(network, 0.9), (other, -0.4), (network, "0.3")]):
        recorder.watch()
        host.run(host.context())
    recorder.stop()
    assert Counter((s.site.path, s.side) for s in recorder.seen) == {
        (s.path, i): 1 for s in host.sites for i in (0, 1)
    }
    for seen in recorder.seen:
        expected = stacked(
            [(content, 0.9), (other_content, -0.4), (content, 0.3)], seen.before, seen.side
        )
        assert seen.error(expected) <= 1e-5
        assert seen.error(seen.before) > 1e-2
    assert {seen.before.shape[-1] for seen in recorder.seen} == {site.width for site in host.sites}


def strengths(host: Host, content: Content, recorder: Recorder) -> dict[tuple[str, int], float]:
    """The multiplier that each projection really saw, found by projecting onto what the network
    adds."""
    found = {}
    for seen in recorder.seen:
        before = seen.before.cpu()
        added = stacked([(content, 1)], before, seen.side) - before
        found[seen.site.path, seen.side] = float(
            ((seen.after.cpu() - before) * added).sum() / added.square().sum()
        )
    return found


def measured(
    host: Host, tail: str, step: int = 0, total: int = 1, hires: bool = False
) -> dict[tuple[str, int], float]:
    """Apply one network with a tag's tail, and measure the multiplier at every projection."""
    content, network = host.network("gelu")
    recorder = Recorder(host)
    with hn.apply(host.unet, [(network, tail)]) as handle:
        handle.at(step, total, hires=hires)
        recorder.watch()
        host.run(host.context())
    recorder.stop()
    return strengths(host, content, recorder)


@FEW
def test_factors_for_keys_and_values(host: Host) -> None:
    for (_, side), strength in measured(host, "0.8:k=0.5:v=-1").items():
        assert strength == pytest.approx((0.4, -0.8)[side], abs=1e-4)
    assert {s for (_, side), s in measured(host, "1:k=0").items() if side == 0} == {0.0}


@FEW
@pytest.mark.parametrize("kind", ["cross", "self"])
def test_one_kind_of_attention_only(host: Host, kind: str) -> None:
    kinds = {site.path: site.kind for site in host.sites}
    assert set(kinds.values()) == {"cross", "self"}
    for (path, _), strength in measured(host, f"0.7:attn={kind}").items():
        assert strength == pytest.approx(0.7 if kinds[path] == kind else 0, abs=1e-4)


def test_blocks_have_the_webuis_names_and_take_their_factors(host: Host) -> None:
    blocks = BLOCKS_SDXL if host.name == "sdxl" else BLOCKS_SD1
    named = {site.path: site.block for site in host.sites}
    assert set(named.values()) == set(blocks)
    factors = {block: (i + 1) / 10 for i, block in enumerate(blocks)}
    for base in ("", "99,"):
        tail = f"0.5:lbw={base}" + ",".join(map(format_number, factors.values()))
        for (path, _), strength in measured(host, tail).items():
            assert strength == pytest.approx(0.5 * factors[str(named[path])], abs=1e-4)


def test_block_names_follow_the_data(host: Host) -> None:
    order, seen = [], set()
    for site in host.sites:
        remover = site.to_k.register_forward_hook(lambda *_, block=site.block: order.append(block))
        seen.add(remover)
    host.run(host.context())
    for remover in seen:
        remover.remove()
    assert list(dict.fromkeys(order)) == list(BLOCKS_SDXL if host.name == "sdxl" else BLOCKS_SD1)


@FEW
@pytest.mark.parametrize(
    ("tail", "values"),
    [
        ("0@0,1@1", [0, 0.25, 0.5, 0.75, 1]),
        ("1:start=0.5", [0, 0, 1, 1, 1]),
        ("1@0,0@2", [1, 0.5, 0, 0, 0]),
    ],
)
def test_schedules_through_the_handle(host: Host, tail: str, values: list[float]) -> None:
    context, network = host.context(), host.network()[1]
    expected = []
    for value in values:
        with hn.apply(host.unet, [(network, value)]):
            expected.append(host.run(context))
    assert not torch.equal(expected[0], expected[-1])
    with hn.apply(host.unet, [(network, tail)]) as handle:
        assert torch.equal(host.run(context), expected[0]), (
            "before the first step is announced, step 0 holds"
        )
        for step in (0, 1, 2, 3, 4, 2, 0):
            handle.at(step, 5)
            for _ in range(2):  # a second-order step calls twice
                assert torch.equal(host.run(context), expected[step])


@pytest.mark.slow
@FEW
def test_the_hires_pass_through_the_handle(host: Host) -> None:
    path = host.sites[0].path, 0
    for hires, expected in ((False, 0.8), (True, 0.2)):
        assert measured(host, "0.8:hr=0.2", hires=hires)[path] == pytest.approx(expected, abs=1e-4)


@FEW
@pytest.mark.parametrize("tokens", [1, 7, 154])
def test_contexts_of_any_length(host: Host, tokens: int) -> None:
    context = host.context(tokens=tokens)
    base = host.run(context)
    with hn.apply(host.unet, [(host.network()[1], 0.6)]):
        proven(host, base, context)


@FEW
@KINDS
def test_autocast_does_not_lower_the_precision(host: Host, activation: str | None) -> None:
    """Of text anywhere, and of self-attention on a CPU; on a card, that is computed in the type in
    which the projection reads it.
    """
    content, network = host.network(activation)
    recorder = Recorder(host)
    with (
        hn.apply(host.unet, [(network, 0.9)]),
        torch.autocast(host.context().device.type, dtype=torch.bfloat16),
    ):
        recorder.watch()
        host.run(host.context())
    recorder.stop()
    assert {seen.before.dtype for seen in recorder.seen} & {torch.bfloat16, torch.float32}
    for seen in recorder.seen:
        expected = stacked([(content, 0.9)], seen.before.float(), seen.side)
        assert seen.after.dtype == seen.before.dtype
        is_half = seen.site.kind == "self" and seen.before.device.type != "cpu"
        half = 5e-2 if is_half else 1.6e-2
        assert seen.error(expected) <= half  # the projection itself is in bfloat16
        if seen.after is not seen.before:
            is_exact = seen.before.dtype == torch.float32 and not is_half
            assert relative_error(seen.after, expected) <= (1e-5 if is_exact else half)


@FEW
def test_gradients_reach_the_context_and_a_network_in_training(host: Host) -> None:
    network = host.network()[1]
    context = host.context().requires_grad_()
    network.to(context.device, torch.float32)  # one in training stays where it is put
    network.train()
    with hn.apply(host.unet, [(network, 1)]):
        host.run(context).square().sum().backward()
    network.train(False)
    assert context.grad is not None
    assert bool(context.grad.abs().max() > 0)
    trained = [
        width
        for width in network.widths
        for p in network.pairs[width][1].parameters()
        if p.grad is not None
    ]
    assert set(trained) == {site.width for site in host.sites}
    assert all(parameter.grad is None for parameter in host.unet.parameters())


@FEW
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_in_every_mode_of_inference(host: Host, mode: Callable[[], torch.inference_mode]) -> None:
    context, network = host.context(), host.network()[1]
    with hn.apply(host.unet, [(network, 1)]):
        expected = host.run(context)
        with mode():
            assert (
                relative_error(host.run(context), expected) <= 1e-5
            )  # without gradients, other kernels serve
        assert torch.equal(host.run(context), expected)


# One call of the UNet


class Runs:
    """Counts how often each network runs, by width."""

    def __init__(self, network: hn.Hypernetwork) -> None:
        self.counts: Counter[int] = Counter()
        self._delta = network.delta
        network.delta = self._counting  # type: ignore[assignment,method-assign]

    def _counting(self, dim: int, side: int, device: torch.device, dtype: torch.dtype) -> object:
        delta = self._delta(dim, side, device, dtype)

        def run(context: torch.Tensor) -> torch.Tensor:
            self.counts[dim] += 1
            return delta(context)

        return run


@KINDS
def test_networks_of_cross_attention_run_once_per_call(host: Host, activation: str | None) -> None:
    network = host.network(activation)[1]
    runs = Runs(network)
    selves = Counter(site.width for site in host.sites if site.kind == "self")
    assert sum(site.kind == "cross" for site in host.sites) > 8
    with hn.apply(host.unet, [(network, 0.8)]):
        for calls in (1, 2, 3):
            host.run(host.context())
            assert runs.counts[host.cross] == 2 * calls, "once for keys, once for values"
            assert all(
                runs.counts[width] == 2 * calls * count for width, count in selves.items() if width
            )


@FEW
def test_blocks_of_equal_strength_share_one_run(host: Host) -> None:
    network = host.network()[1]
    runs = Runs(network)
    halves = ",".join(["1"] * 5 + ["0.5"] * (6 if host.name == "sdxl" else 11))
    with hn.apply(host.unet, [(network, f"1:lbw={halves}")]):
        host.run(host.context())
    assert runs.counts[host.cross] == 4


@FEW
@KINDS
def test_a_context_changed_in_place_between_calls_is_seen(
    host: Host, activation: str | None
) -> None:
    network, context = host.network(activation)[1], host.context(1)
    with hn.apply(host.unet, [(network, 0.8)]):
        first, expected = host.run(context), host.run(host.context(2))
        assert not torch.equal(first, expected)
        context.copy_(host.context(2))
        assert torch.equal(host.run(context), expected)


@FEW
@ERRORS
def test_nothing_is_remembered_after_an_error(host: Host, error: type[BaseException]) -> None:
    network, context = host.network()[1], host.context(1)
    with hn.apply(host.unet, [(network, 0.8)]):
        expected = host.run(host.context(2))
        Breaks(host, error)
        with pytest.raises(error):
            host.run(context)
        context.copy_(host.context(2))
        assert torch.equal(host.run(context), expected)


def is_gone(kept: weakref.ref[object]) -> bool:
    """Whether nothing but garbage keeps an object."""
    gc.collect(1)  # the young ones; all would take long
    if kept() is not None:  # a collection in the middle may have made the garbage old
        gc.collect()
    return kept() is None


@FEW
def test_contexts_are_let_go_when_a_call_ends(host: Host) -> None:
    with hn.apply(host.unet, [(host.network()[1], 0.8)]) as handle:
        for error in (None, RuntimeError, KeyboardInterrupt):
            context = host.context()
            kept = weakref.ref(context)
            if error is not None:
                Breaks(host, error)
                with pytest.raises(error):
                    host.run(context)
            else:
                host.run(context)
            if (
                error is KeyboardInterrupt
            ):  # torch calls no hook then; removing, or the next call, lets go
                handle.remove()
            del context
            assert is_gone(kept)


@FEW
def test_attention_called_on_its_own_is_transformed_too(host: Host) -> None:
    content, network = host.network()
    site = next(site for site in host.sites if site.kind == "cross")
    x = host.context()
    with hn.apply(host.unet, [(network, 0.8)]):
        for seed in (1, 2):
            x.copy_(host.context(seed))
            expected = site.to_k.weight.cpu() @ stacked([(content, 0.8)], x, 0).mT  # type: ignore[operator]
            assert relative_error(site.to_k(x), expected.mT) <= 1e-5


@FEW
def test_two_threads(host: Host) -> None:
    network = host.network()[1]
    contexts = [host.context(seed) for seed in (1, 2)]
    results: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    start = threading.Barrier(2)

    def work(index: int) -> None:
        for _ in range(4):
            start.wait(60)
            results[index].append(host.run(contexts[index]))

    with hn.apply(host.unet, [(network, 0.8)]):
        expected = [host.run(context) for context in contexts]
        threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    for index in (0, 1):
        assert len(results[index]) == 4
        assert all(torch.equal(result, expected[index]) for result in results[index])


@FEW
def test_a_call_in_another_thread_in_the_middle_of_one(host: Host) -> None:
    network, contexts = host.network()[1], [host.context(seed) for seed in (1, 2)]
    results: list[torch.Tensor] = []

    def call_meanwhile(*_: object) -> None:
        remover.remove()
        other = threading.Thread(target=lambda: results.append(host.run(contexts[1])))
        other.start()
        other.join(120)

    with hn.apply(host.unet, [(network, 0.8)]):
        expected = [host.run(context) for context in contexts]
        runs = Runs(network)
        remover = host.sites[len(host.sites) // 2].to_v.register_forward_hook(call_meanwhile)
        assert torch.equal(host.run(contexts[0]), expected[0])
    assert torch.equal(results[0], expected[1])
    assert runs.counts[host.cross] == 4, "each call remembers for itself"


# The handle


@FEW
def test_applying_again_after_removing(host: Host) -> None:
    context, network = host.context(), host.network()[1]
    base = host.run(context)
    results = []
    for _ in range(3):
        with hn.apply(host.unet, [(network, 1)]):
            results.append(proven(host, base, context))
        assert torch.equal(host.run(context), base)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@FEW
def test_another_set_replaces_the_first_until_it_is_removed(host: Host) -> None:
    context, (_, first), (_, second) = host.context(), host.network(seed=1), host.network(seed=2)
    with hn.apply(host.unet, [(second, 0.5)]):
        alone = host.run(context)
    outer = hn.apply(host.unet, [(first, 0.5)])
    before = host.run(context)
    inner = hn.apply(host.unet, [(second, 0.5)])
    assert torch.equal(host.run(context), alone), "replaced, not added"
    assert "not active" in repr(outer)
    outer.at(0, 1)
    inner.remove()
    assert torch.equal(host.run(context), before)
    outer.remove()


@FEW
def test_two_sets_in_one_stack_act_both(host: Host) -> None:
    context, (_, first), (_, second) = host.context(), host.network(seed=1), host.network(seed=2)
    results = []
    for networks in ([(first, 0.5)], [(first, 0.5), (second, 0.5)], [(second, 0.5), (first, 0.5)]):
        with hn.apply(host.unet, networks):
            results.append(host.run(context))
    assert all(relative_error(a, b) > 1e-4 for a, b in itertools.combinations(results, 2))


@FEW
def test_the_handle_tells_what_it_does(host: Host) -> None:
    handle = hn.apply(
        host.unet, [(host.network(seed=1)[1], 0.5), (host.network(seed=2)[1], "0@0,1@1:k=2")]
    )
    text = repr(handle)
    assert "n1 0.5, n2 0@0,1@1:k=2" in text
    assert type(host.unet).__name__ in text
    assert f"{len(host.sites)} attention modules; active" in text
    handle.remove()
    assert "not active" in repr(handle)
    with hn.apply(host.unet, []) as idle:
        assert "no networks" in repr(idle)


@FEW
def test_nothing_joins_the_state_dict_or_the_modules(host: Host) -> None:
    keys, modules = list(host.unet.state_dict()), [name for name, _ in host.unet.named_modules()]
    weights = [p.clone() for p in host.unet.parameters()]
    with hn.apply(host.unet, [(host.network(None)[1], 1)]):
        host.run(host.context())
        assert list(host.unet.state_dict()) == keys
        assert [name for name, _ in host.unet.named_modules()] == modules
        assert all(map(torch.equal, host.unet.parameters(), weights))


def test_a_patched_unet_can_go(ldm: Host) -> None:
    handle = hn.apply(ldm.unet, [(ldm.network()[1], 1)])
    gone = weakref.ref(ldm.unet)
    ldm.unet, ldm.run = nn.Module(), lambda context: context
    assert is_gone(gone)
    handle.remove()


@FEW
def test_remove_leaves_other_peoples_hooks(host: Host) -> None:
    calls: list[str] = []
    before = host.sites[0].to_k.register_forward_pre_hook(lambda *_: calls.append("before"))
    handle = hn.apply(host.unet, [(host.network()[1], 1)])
    after = host.sites[0].to_k.register_forward_pre_hook(lambda *_: calls.append("after"))
    host.run(host.context())
    handle.remove()
    host.run(host.context())
    assert calls == ["before", "after"] * 2
    before.remove()
    after.remove()


# Which modules


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_fused_projections_are_refused_until_they_are_unfused(name: str) -> None:
    host = make(name)
    host.unet.fuse_qkv_projections()  # type: ignore[operator]
    with pytest.raises(PatchError, match="unfuse"):
        hn.apply(host.unet, [(host.network()[1], 1)])
    assert MARK not in vars(host.unet)
    host.unet.unfuse_qkv_projections()  # type: ignore[operator]
    base = host.run(host.context())
    with hn.apply(host.unet, [(host.network()[1], 1)]):
        proven(host, base, host.context())


class Packed(nn.Module):
    """A projection whose stored weight tells nothing of its width, as quantised ones."""

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__()
        self.blocks = nn.Parameter(
            dense.weight.detach().flatten().to(torch.float16).view(torch.uint8), False
        )
        self.shape = dense.weight.shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The projection, unpacked when it is used."""
        return x @ self.blocks.view(torch.float16).view(self.shape).to(x.dtype).T


def pack(unet: nn.Module) -> None:
    """Quantise the projections of all attention modules."""
    for module in list(unet.modules()):
        if isinstance(module, CrossAttention):
            module.to_k, module.to_v = Packed(module.to_k), Packed(module.to_v)  # type: ignore[assignment]


def test_quantised_projections_go_by_the_context(ldm: Host) -> None:
    pack(ldm.unet)
    host = Host("packed", ldm.unet, ldm.run, ldm.cross)
    assert {site.width for site in host.sites} == {None}
    assert {site.kind for site in host.sites} == {"cross", "self"}
    content, network = host.network()
    base, recorder = host.run(host.context()), Recorder(host)
    with hn.apply(host.unet, [(network, 0.8)]) as handle:
        recorder.watch()
        proven(host, base, host.context())
        assert "without" not in repr(handle)
    for seen in recorder.seen:
        assert relative_error(seen.after, stacked([(content, 0.8)], seen.before, seen.side)) <= 1e-5


class Renamed(nn.Module):
    """Attention under other names: only its shape tells what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = CrossAttention(8), CrossAttention(8, 12)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Both attentions, one after the other."""
        return self.second(x + self.first(x), context)  # type: ignore[no-any-return]


def test_attention_is_known_by_its_shape() -> None:
    model = Renamed().requires_grad_(False)
    assert [(s.path, s.kind, s.block, s.width) for s in find_sites(model)] == [
        ("first", None, None, 8),
        ("second", "cross", None, 12),
    ]
    network = hn.Hypernetwork.create("x", hn.Structure(activation="relu"), (8, 12))
    with pytest.raises(TagError, match="leave it out"):
        hn.apply(model, [(network, "1:lbw=OUTALL")])
    x, context = torch.ones(1, 3, 8), torch.ones(1, 3, 12)
    base = model(x, context)
    for parameter in network.parameters():
        parameter.data += 0.3
    with hn.apply(model, [(network, 1)]):
        assert relative_error(model(x, context), base) > 1e-3
    assert torch.equal(model(x, context), base)


@pytest.mark.parametrize("name", ["ldm", *OF_DIFFUSERS.values()])
def test_all_sites_are_found(name: str) -> None:
    host = make(name)
    expected = {"ldm": 32, "sd1": 32, "sd2": 32, "sdxl": 2 * (2 + 4 + 2 + 6 + 3)}[name]
    assert len(host.sites) == expected
    assert {site.width for site in host.sites if site.kind == "cross"} == {host.cross}
    assert {site.width for site in host.sites if site.kind == "self"} <= set(host.widths) - {
        host.cross
    }


@pytest.mark.parametrize("model", [nn.Linear(8, 8), nn.MultiheadAttention(8, 2), nn.Sequential()])
def test_models_without_such_attention(model: nn.Module) -> None:
    network = hn.Hypernetwork.create("x", hn.Structure(), (8,))
    for networks in ([(network, 1)], []):
        with pytest.raises(NoAttentionError, match="to_q, to_k and to_v"):
            hn.apply(model, networks)  # type: ignore[arg-type]


# Pictures of one batch with networks of their own


def _alternating(arguments: tuple[object, ...], named: dict[str, object]) -> list[int]:
    return [0, 1]


@FEW
@KINDS
def test_each_picture_gets_its_own_networks(host: Host, activation: str | None) -> None:
    from hypernetworks.patching import apply_per_picture

    context, one, other = (
        host.context(),
        host.network(activation, 1)[1],
        host.network(activation, 2)[1],
    )
    base = host.run(context)
    alone = []
    for networks in ([(one, 1.0), (other, 0.5)], [(other, 0.9)]):
        with hn.apply(host.unet, networks):
            alone.append(proven(host, base, context))
    assert relative_error(alone[0], alone[1]) > 1e-3
    with apply_per_picture(host.unet, [[(one, 1.0), (other, 0.5)], [(other, 0.9)]], _alternating):
        both = host.run(context)
    assert relative_error(both[0], alone[0][0]) < 1e-5
    assert relative_error(both[1], alone[1][1]) < 1e-5
    with apply_per_picture(host.unet, [[], [(other, 0.9)]], _alternating):
        half = host.run(context)
    assert relative_error(half[0], base[0]) < 1e-6
    assert relative_error(half[1], alone[1][1]) < 1e-5
    assert torch.equal(host.run(context), base)


def test_rows_that_cant_be_told_apart_get_the_first_pictures_networks(ldm: Host) -> None:
    from hypernetworks.patching import apply_per_picture

    context, one, other = ldm.context(), ldm.network(seed=1)[1], ldm.network(seed=2)[1]
    with hn.apply(ldm.unet, [(one, 1.0)]):
        expected = ldm.run(context)
    with apply_per_picture(ldm.unet, [[(one, 1.0)], [(other, 1.0)]], lambda *_: None):
        assert torch.equal(ldm.run(context), expected)


def test_an_error_of_ours_costs_the_networks_and_not_the_call(ldm: Host) -> None:
    context, network, told = ldm.context(), ldm.network()[1], list[Exception]()
    base = ldm.run(context)
    handle = hn.apply(ldm.unet, [(network, 1.0)], on_error=told.append)
    proven(ldm, base, context)
    before = hooks(ldm.unet)

    def fail(*_: object, **__: object) -> torch.Tensor:
        raise MemoryError("none left")

    handle._per_image[0].stack.transform = fail  # type: ignore[method-assign,assignment]
    assert torch.equal(ldm.run(context), base)
    assert [type(error) for error in told] == [MemoryError]
    assert hooks(ldm.unet) < before
    assert torch.equal(ldm.run(context), base)
    assert len(told) == 1
    handle.remove()
    assert MARK not in vars(ldm.unet)
