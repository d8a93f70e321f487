"""Linear networks inside the weights of ``to_k`` and ``to_v``: which path is taken, and that nobody
is fooled by it."""

from __future__ import annotations

import copy
import gc
import itertools
import weakref
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from laws.hosts import Host, Recorder, left_as_it_was, make, traces
from reference import relative_error, stacked
from torch import nn

import hypernetworks as hn
from hypernetworks.engine.folding import Fold, WeightMark
from hypernetworks.engine.prepared import prepared
from hypernetworks.engine.tensors import bytes_of
from hypernetworks.patching import folded, seam

SELF_PATHS = 2


@pytest.fixture(autouse=True)
def _every_row_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """These UNets are so small that hardly anything would pay."""
    monkeypatch.setattr(folded, "_REFOLD_ROWS", {"cpu": 1})


@pytest.fixture
def ldm() -> Iterator[Host]:
    """A UNet of its own; law 1 holds after each test."""
    yield from left_as_it_was(make("ldm"))


def self_paths(host: Host, handle: hn.Handle) -> set[str]:
    """How the projections of self-attention were served."""
    paths = handle.paths
    return {
        paths[f"{s.path}.{name}"]
        for s in host.sites
        if s.kind == "self"
        for name in ("to_k", "to_v")
    }


def weights(host: Host) -> list[torch.Tensor]:
    return [p.weight for s in host.sites if s.kind == "self" for p in (s.to_k, s.to_v)]  # type: ignore[misc]


def by_context(
    host: Host, networks: list[tuple[hn.Hypernetwork, float | str]], at: tuple[int, int] = (0, 1)
) -> torch.Tensor:
    """The same without folding."""
    with hn.apply(host.unet, networks, is_dense=lambda _: False) as handle:
        handle.at(*at)
        result = host.run(host.context())
        assert "folded" not in handle.paths.values()
    return result


def test_linear_networks_are_folded_in_self_attention_only(ldm: Host) -> None:
    base = ldm.run(ldm.context())
    with hn.apply(ldm.unet, [(ldm.network(None)[1], 0.7)]) as handle:
        assert relative_error(ldm.run(ldm.context()), base) > 1e-3
        kinds = {site.path: site.kind for site in ldm.sites}
        taken = {(kinds[path.rsplit(".", 1)[0]], how) for path, how in handle.paths.items()}
        assert taken == {("self", "folded"), ("cross", "input")}
    assert torch.equal(ldm.run(ldm.context()), base)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_stacks_are_what_the_reference_computes(ldm: Host, count: int) -> None:
    made = [ldm.network(None, seed=seed, activate_output=False) for seed in range(count)]
    strengths = (0.9, -0.4, 1.3)[:count]
    recorder = Recorder(ldm)
    with hn.apply(ldm.unet, [(n, m) for (_, n), m in zip(made, strengths, strict=True)]) as handle:
        recorder.watch()
        ldm.run(ldm.context())
        assert self_paths(ldm, handle) == {"folded"}
    recorder.stop()
    for seen in recorder.seen:
        expected = stacked(
            [(c, m) for (c, _), m in zip(made, strengths, strict=True)], seen.before, seen.side
        )
        assert seen.error(expected) <= 1e-5
        assert seen.error(seen.before) > 1e-2


def test_what_comes_before_the_linear_ones_is_computed(ldm: Host) -> None:
    (first, relu), (second, linear) = ldm.network("relu"), ldm.network(None, seed=1)
    recorder = Recorder(ldm)
    with hn.apply(ldm.unet, [(relu, 0.8), (linear, 0.6)]) as handle:
        recorder.watch()
        ldm.run(ldm.context())
        assert self_paths(ldm, handle) == {"folded"}
    with hn.apply(ldm.unet, [(linear, 0.6), (relu, 0.8)]) as handle:
        ldm.run(ldm.context())
        assert self_paths(ldm, handle) == {"input"}, (
            "nothing to fold where a network that must be computed comes last"
        )
    recorder.stop()
    for seen in recorder.seen[: 2 * len(ldm.sites)]:
        assert seen.error(stacked([(first, 0.8), (second, 0.6)], seen.before, seen.side)) <= 1e-5


def test_a_network_that_is_off_does_not_keep_others_from_being_folded(ldm: Host) -> None:
    with hn.apply(ldm.unet, [(ldm.network(None)[1], 0.6), (ldm.network("relu")[1], 0)]) as handle:
        ldm.run(ldm.context())
        assert self_paths(ldm, handle) == {"folded"}


@pytest.mark.parametrize("tail", ["0@0,1@1", "1:start=0.5", "0.3:hr=0.9"])
def test_a_schedule_refolds(ldm: Host, tail: str) -> None:
    network = ldm.network(None)[1]
    with hn.apply(ldm.unet, [(network, tail)]) as handle:
        for step, hires in itertools.product(range(4), (False, True)):
            handle.at(step, 4, hires=hires)
            result = ldm.run(ldm.context())
            with hn.apply(ldm.unet, [(network, tail)], is_dense=lambda _: False) as other:
                other.at(step, 4, hires=hires)
                assert relative_error(result, ldm.run(ldm.context())) <= 1e-5
        assert self_paths(ldm, handle) == {"folded"}


def test_another_multiplier_needs_no_new_product(
    ldm: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, original = [], Fold.of
    monkeypatch.setattr(Fold, "of", lambda *arguments: made.append(1) or original(*arguments))
    network = ldm.network(None)[1]
    for multiplier in (0.2, 0.9, -1.0):
        with hn.apply(ldm.unet, [(network, multiplier)]):
            result = ldm.run(ldm.context())
        assert relative_error(result, by_context(ldm, [(network, multiplier)])) <= 1e-5
    assert len(made) == len(weights(ldm))
    assert network.prepared_bytes > 0
    network.release()
    assert network.prepared_bytes == 0


def test_the_same_job_twice_is_the_same_to_the_bit(ldm: Host) -> None:
    """Whatever is kept from the first: other handles, other multipliers, and a cleared cache lie
    between."""
    networks = [
        (ldm.network(None, seed=seed)[1], tail) for seed, tail in ((1, "0.2@0,1@1"), (2, 0.5))
    ]

    def job() -> list[torch.Tensor]:
        with hn.apply(ldm.unet, networks) as handle:
            return [(handle.at(step, 3), ldm.run(ldm.context()))[1] for step in range(3)]  # type: ignore[func-returns-value]

    first = job()
    assert all(torch.equal(a, b) for a, b in zip(first, job(), strict=True))
    with hn.apply(ldm.unet, networks[:1]):
        ldm.run(ldm.context())
    assert all(torch.equal(a, b) for a, b in zip(first, job(), strict=True))
    networks[0][0].release()
    assert all(torch.equal(a, b) for a, b in zip(first, job(), strict=True))


# Weights that something else changes


def in_place(weight: nn.Parameter, change: torch.Tensor) -> None:
    with torch.no_grad():
        weight.add_(change)


def behind_the_counter(weight: nn.Parameter, change: torch.Tensor) -> None:
    weight.data.add_(change)


def other_storage(weight: nn.Parameter, change: torch.Tensor) -> None:
    weight.data = weight.data + change


@pytest.mark.parametrize("way", [in_place, behind_the_counter, other_storage, "replaced"])
def test_a_lora_that_rewrites_weights_is_seen_at_once(ldm: Host, way: object) -> None:
    """Between the steps of one generation, and back again, as LoRA extensions do."""
    network, originals = ldm.network(None)[1], [w.detach().clone() for w in weights(ldm)]
    changes = [torch.randn_like(w) * 0.5 for w in originals]

    def alter(sign: float) -> None:
        projections = [p for s in ldm.sites if s.kind == "self" for p in (s.to_k, s.to_v)]
        for projection, change in zip(projections, changes, strict=True):
            if callable(way):
                way(projection.weight, sign * change)
            else:
                weight = projection.weight.detach() + sign * change  # type: ignore[operator]
                projection.weight = nn.Parameter(weight, requires_grad=False)

    first = by_context(ldm, [(network, 0.8)])
    with hn.apply(ldm.unet, [(network, 0.8)]) as handle:
        assert relative_error(ldm.run(ldm.context()), first) <= 1e-5
        alter(1)
        changed = ldm.run(ldm.context())
        assert relative_error(changed, first) > 1e-3
        again = ldm.run(ldm.context())
        assert self_paths(ldm, handle) == {"folded"}, "weights that rest again are folded again"
        alter(-1)
        assert relative_error(ldm.run(ldm.context()), first) <= 1e-4
    alter(1)
    assert relative_error(changed, by_context(ldm, [(network, 0.8)])) <= 1e-5
    assert relative_error(again, changed) <= 1e-5
    with hn.apply(ldm.unet, [(network, 0.8)]):
        assert relative_error(ldm.run(ldm.context()), changed) <= 1e-5, "and between generations"
    alter(-1)
    assert all(
        torch.allclose(w, o, atol=1e-5) for w, o in zip(weights(ldm), originals, strict=True)
    )


def test_weights_of_inference_mode_are_watched_too() -> None:
    with torch.inference_mode():
        weight = torch.randn(8, 8)
        mark = WeightMark(weight)
        assert mark.holds(weight)
        weight.add_(1)
        assert not mark.holds(weight)


def test_the_modules_own_weights_are_never_written_to(ldm: Host) -> None:
    before = [(w, w.data_ptr(), w._version, w.detach().clone()) for w in weights(ldm)]
    keys = list(ldm.unet.state_dict())
    with hn.apply(ldm.unet, [(ldm.network(None)[1], "0@0,1@1")]) as handle:
        for step in range(3):
            handle.at(step, 3)
            ldm.run(ldm.context())
        assert list(ldm.unet.state_dict()) == keys
        for (weight, address, version, content), now in zip(before, weights(ldm), strict=True):
            assert now is weight
            assert (now.data_ptr(), now._version) == (address, version)
            assert torch.equal(now, content)


class Adds(nn.Linear):
    """A linear layer that does more than multiply."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return super().forward(input) + 1


def parametrized(module: nn.Linear) -> None:
    nn.utils.parametrizations.weight_norm(module)


def of_another_class(module: nn.Linear) -> None:
    module.__class__ = Adds


def with_a_forward_of_its_own(module: nn.Linear) -> None:
    module.forward = lambda x: nn.functional.linear(x, module.weight) * 2  # type: ignore[method-assign]


def with_a_bias(module: nn.Linear) -> None:
    module.bias = nn.Parameter(torch.randn(module.out_features).to(module.weight))


@pytest.mark.parametrize(
    "change", [parametrized, of_another_class, with_a_forward_of_its_own, with_a_bias]
)
def test_layers_that_do_more_go_by_the_context(change: object) -> None:
    host = make("ldm")
    for site in host.sites:
        for projection in (site.to_k, site.to_v):
            change(projection)  # type: ignore[operator]
    host.unet.requires_grad_(False)
    before, base = traces(host.unet), host.run(host.context())
    recorder = Recorder(host)
    content, network = host.network(None)
    with hn.apply(host.unet, [(network, 0.8)]) as handle:
        recorder.watch()
        assert relative_error(host.run(host.context()), base) > 1e-3
        assert set(handle.paths.values()) == {"input"}
    recorder.stop()
    for seen in recorder.seen:
        projection = (seen.site.to_k, seen.site.to_v)[seen.side]
        before_it = stacked([(content, 0.8)], seen.before, seen.side)
        expected = projection(before_it.to(next(host.unet.parameters()).device))
        assert relative_error(seen.output, expected) <= 1e-5
    assert traces(host.unet) == before
    assert torch.equal(host.run(host.context()), base)


def test_another_party_may_wrap_the_forward_meanwhile(ldm: Host) -> None:
    base, module = ldm.run(ldm.context()), ldm.sites[0].to_k
    handle = hn.apply(ldm.unet, [(ldm.network(None)[1], 0.8)])
    ours = module.forward
    module.forward = lambda *arguments: ours(*arguments)  # type: ignore[method-assign] # noqa: PLW0108
    assert relative_error(ldm.run(ldm.context()), base) > 1e-3
    handle.remove()
    assert torch.equal(ldm.run(ldm.context()), base), (
        "what they kept is the module's own forward now"
    )
    del module.forward
    assert torch.equal(ldm.run(ldm.context()), base)


def test_a_copy_of_a_folded_layer_has_no_network(ldm: Host) -> None:
    module = next(site for site in ldm.sites if site.kind == "self").to_k
    context = torch.randn(2, 16, module.in_features).to(module.weight)  # type: ignore[arg-type]
    base = module(context)
    with hn.apply(ldm.unet, [(ldm.network(None)[1], 0.8)]):
        ldm.run(ldm.context())
        assert not torch.equal(module(context), base)
        copied = copy.deepcopy(module)
        assert torch.equal(copied(context), base)
        with torch.no_grad():
            copied.weight.zero_()  # type: ignore[operator]
        assert not copied(context).any(), "it multiplies by its own weight"


def test_gradients_of_weights_and_contexts_are_not_cut(ldm: Host) -> None:
    ldm.unet.requires_grad_(True)
    try:
        with hn.apply(ldm.unet, [(ldm.network(None)[1], 0.8)]) as handle:
            ldm.run(ldm.context()).sum().backward()
            assert self_paths(ldm, handle) == {"input"}
            assert all(w.grad is not None and w.grad.any() for w in weights(ldm))
    finally:
        ldm.unet.requires_grad_(False)
        ldm.unet.zero_grad()


# What it may take


def test_a_limit_in_bytes(ldm: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    one = weights(ldm)[0]
    monkeypatch.setattr(seam, "FOLDED_BYTES", bytes_of(one))
    network = ldm.network(None)[1]
    with hn.apply(ldm.unet, [(network, 0.8)]) as handle:
        result = ldm.run(ldm.context())
        assert Counter(handle.paths.values())["folded"] == 1
    assert relative_error(result, by_context(ldm, [(network, 0.8)])) <= 1e-5


def products_pay_anew(monkeypatch: pytest.MonkeyPatch, above: int) -> None:
    """Say that a product pays from so many rows of a generation on."""

    def pays(rows: int, _: torch.Tensor) -> bool:
        return rows > above

    monkeypatch.setattr(folded.FoldedProjection, "_pays_anew", staticmethod(pays))


@pytest.mark.parametrize(
    ("rows", "steps", "device", "dtype", "pays"),
    [
        (2 * 1024, 20, "meta", torch.float16, True),  # SDXL, 1024x1024
        (2 * 1024, 4, "meta", torch.float16, False),
        (2 * 256, 20, "meta", torch.bfloat16, False),  # 512x512
        (2 * 256, 20, "meta", torch.float32, True),
        (2 * 1024, 1, "cpu", torch.float32, False),
        (2 * 1024, 2, "cpu", torch.bfloat16, True),
    ],
)
def test_how_many_rows_a_product_is_worth(
    rows: int, steps: int, device: str, dtype: torch.dtype, pays: bool
) -> None:
    weight = torch.empty(1280, 1280, dtype=dtype, device=device)
    assert folded.FoldedProjection._pays_anew(rows * steps, weight) is pays


@pytest.mark.parametrize("room_for", [0, 1])
@pytest.mark.parametrize("count", [1, 2])
def test_weights_are_folded_before_products_are_kept(
    ldm: Host, monkeypatch: pytest.MonkeyPatch, count: int, room_for: int
) -> None:
    networks = [ldm.network(None, seed=seed)[1] for seed in range(count)]
    stacks = [[(network, m) for network in networks] for m in (0.8, -1.2)]
    expected = []
    for stack in stacks:
        with hn.apply(ldm.unet, stack):
            expected.append(ldm.run(ldm.context()))
    for network in networks:
        network.release()

    sizes = [bytes_of(weight) for weight in weights(ldm)]
    products_pay_anew(monkeypatch, above=0)
    monkeypatch.setattr(seam, "FOLDED_BYTES", sum(sizes) + sum(sizes[:room_for]))
    for _ in range(2):
        for stack, result in zip(stacks, expected, strict=True):
            with hn.apply(ldm.unet, stack) as handle:
                for _ in range(2):
                    assert torch.equal(ldm.run(ldm.context()), result)
                assert self_paths(ldm, handle) == {"folded"}
            assert len(prepared(networks[0]).folds) == room_for


def test_products_of_an_earlier_job_make_room(ldm: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    network, sizes = ldm.network(None)[1], [bytes_of(weight) for weight in weights(ldm)]
    products_pay_anew(monkeypatch, above=max(rows_of_a_step(ldm)))
    monkeypatch.setattr(seam, "FOLDED_BYTES", limit := sum(sizes) * 4 // 3)
    for steps in (1, 1000, 1000):
        with hn.apply(ldm.unet, [(network, 0.8)]) as handle:
            handle.at(0, steps)
            ldm.run(ldm.context())
            folded_count = Counter(handle.paths.values())["folded"]
        assert (folded_count == len(sizes)) == (steps > 1)
        products = [fold.product for fold in prepared(network).folds.values()]
        assert products
        assert bytes_of(*products) <= (limit / 2 if steps == 1 else limit - sum(sizes))
        for weight in weights(ldm):
            weight.mul_(1.01)


def rows_of_a_step(host: Host) -> list[int]:
    """How many rows each context of self-attention has."""
    recorder = Recorder(host)
    with hn.apply(host.unet, [(host.network("relu")[1], 0.1)]):
        recorder.watch()
        host.run(host.context())
    recorder.stop()
    return [seen.before.numel() // seen.before.shape[-1] for seen in recorder.seen]


@pytest.mark.parametrize(
    ("multiplier", "steps"), [("0.2@0,1@1", None), ("0.2@0,1@1", 50), (0.8, 1)]
)
def test_products_are_kept_where_computing_them_anew_takes_longer(
    ldm: Host, monkeypatch: pytest.MonkeyPatch, multiplier: float | str, steps: int | None
) -> None:
    network, sizes = ldm.network(None)[1], [bytes_of(weight) for weight in weights(ldm)]
    products_pay_anew(monkeypatch, above=max(rows_of_a_step(ldm)))
    monkeypatch.setattr(seam, "FOLDED_BYTES", sum(sizes))
    with hn.apply(ldm.unet, [(network, multiplier)]) as handle:
        if steps is not None:
            handle.at(0, steps)
        result = ldm.run(ldm.context())
        count = Counter(handle.paths.values())["folded"]
    assert len(prepared(network).folds) == count
    assert 0 < count < len(sizes)
    assert relative_error(result, by_context(ldm, [(network, multiplier)])) <= 1e-5


def test_no_memory_for_it_costs_nothing_but_speed(
    ldm: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Fold:
        raise RuntimeError("out of memory")

    network = ldm.network(None)[1]
    expected = by_context(ldm, [(network, 0.8)])
    monkeypatch.setattr(Fold, "of", fail)
    with hn.apply(ldm.unet, [(network, 0.8)]) as handle:
        assert torch.equal(ldm.run(ldm.context()), expected)
        assert "folded" not in handle.paths.values()


def test_products_go_with_the_network_and_with_the_unet() -> None:
    host, network = make("ldm"), make("ldm").network(None)[1]
    with hn.apply(host.unet, [(network, 0.8)]):
        host.run(host.context())
    kept = weakref.ref(next(iter(prepared(network).folds.values())).product)
    assert len(prepared(network).folds) == len(weights(host))
    del host
    gc.collect()
    other = make("ldm")
    with hn.apply(other.unet, [(network, 0.8)]):
        other.run(other.context())
    assert kept() is None, "products with weights that are gone make room"
    assert len(prepared(network).folds) == len(weights(other))


def test_an_error_in_a_network_before_the_folded_one_costs_no_picture(
    ldm: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, told = ldm.run(ldm.context()), list[Exception]()
    relu, linear = ldm.network("relu")[1], ldm.network(None, seed=1)[1]
    with hn.apply(ldm.unet, [(relu, 0.8), (linear, 0.6)], on_error=told.append):
        ldm.run(ldm.context())

        def fail(*_: object) -> torch.Tensor:
            raise MemoryError("none left")

        monkeypatch.setattr(relu, "step", fail)
        assert torch.equal(ldm.run(ldm.context()), base)
        assert [type(error) for error in told] == [MemoryError]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_types_of_weight(dtype: torch.dtype) -> None:
    host = make("ldm")
    host.unet.to(dtype)
    content, network = host.network(None)
    recorder = Recorder(host)
    with hn.apply(host.unet, [(network, 0.8)]) as handle:
        recorder.watch()
        host.run(host.context())
        assert self_paths(host, handle) == {"folded"}
    recorder.stop()
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float64: 1e-5}[dtype]
    for seen in recorder.seen:
        assert seen.output.dtype == dtype
        assert seen.error(stacked([(content, 0.8)], seen.before.float(), seen.side)) <= tolerance


@pytest.mark.parametrize("activation", [None, "relu"])
def test_networks_go_when_the_last_reference_goes(ldm: Host, activation: str | None) -> None:
    """Without waiting for the garbage collector: a network has 84 MiB and more."""
    network = ldm.network(activation)[1]
    gone = weakref.ref(network)
    gc.disable()
    try:
        with hn.apply(ldm.unet, [(network, 0.8)]):
            ldm.run(ldm.context())
        del network
        assert gone() is None
    finally:
        gc.enable()
