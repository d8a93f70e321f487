"""Keys and values of the text at once, as on graphics cards: here on a CPU that is taken for one,
against the reference.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from laws.hosts import Host, Recorder, left_as_it_was, make
from reference import Content, Recipe, relative_error, stacked

import hypernetworks as hn
from hypernetworks.engine import stack
from hypernetworks.engine.hidden import BothSides
from hypernetworks.engine.prepared import prepared
from hypernetworks.engine.stack import Stack

TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
DIM = 12
SHAPES = [
    (None, (1, 2, 1)),
    ("relu", (1, 2, 1)),
    ("gelu", (1, 2, 0.5, 1)),
    ("softmax", (1, 3, 1)),  # over the batch
]


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels count on this CPU, as on a card."""
    monkeypatch.setattr(stack, "FUSING", ("cpu",))


@pytest.fixture
def host() -> Iterator[Host]:
    """Law 1 holds after each test."""
    yield from left_as_it_was(make("ldm"))


def network(
    activation: str | None, layers: tuple[float, ...] = (1, 2, 1)
) -> tuple[Content, hn.Hypernetwork]:
    """Random, of one width."""
    recipe = Recipe((DIM,), layers, activation, activate_output=False)
    content = recipe.content()
    structure = hn.Structure(
        layers, activation or "linear", activate_output=False, dropout=(0.0,) * len(layers)
    )
    return content, hn.Hypernetwork.from_tensors("both", structure, {DIM: content[DIM]})


@torch.no_grad()
@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize(("activation", "layers"), SHAPES, ids=str)
def test_both_are_those_of_the_reference(
    activation: str | None, layers: tuple[float, ...], dtype: torch.dtype
) -> None:
    content, made = network(activation, layers)
    context = torch.randn(2, 5, DIM).to(dtype)
    before = context.clone()
    for multiplier in (0.7, -1.3):
        both = Stack([made]).transform_both(context, [multiplier])
        assert both is not None
        for side, result in enumerate(both):
            expected = stacked([(content, multiplier)], context.float(), side)
            assert result.dtype is dtype
            assert result.is_contiguous()
            assert relative_error(result.float(), expected) <= TOLERANCES[dtype]
            assert relative_error(context.float(), expected) > 2e-2
    assert torch.equal(context, before)


def test_the_rest_is_computed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    context, relu, linear = torch.randn(2, 5, DIM), network("relu")[1], network(None)[1]
    one, two = Stack([relu]), Stack([relu, linear])
    assert one.transform_both(context, [0.8]) is None  # gradients are on
    with torch.no_grad():
        assert one.transform_both(context, [0.8]) is not None
        assert two.transform_both(context, [0.8, 0.0]) is not None
        assert two.transform_both(context, [0.8, 0.5]) is None
        assert one.transform_both(context[0], [0.8]) is None
        assert one.transform_both(torch.randn(2, 5, DIM + 1), [0.8]) is None
        assert Stack([network("prelu")[1]]).transform_both(context, [0.8]) is None
        relu.train()
        assert one.transform_both(context, [0.8]) is None
        monkeypatch.setattr(stack, "FUSING", ("cuda",))
        assert Stack([linear]).transform_both(context, [0.8]) is None


@torch.no_grad()
@pytest.mark.parametrize("activation", [None, "relu"])
def test_release_frees_all_of_it(activation: str | None) -> None:
    made = network(activation)[1]
    Stack([made]).transform_both(torch.randn(2, 5, DIM), [0.8])
    assert prepared(made).both
    assert made.prepared_bytes >= 2 * DIM * DIM * 4
    made.release()
    assert made.prepared_bytes == 0


@torch.no_grad()
@pytest.mark.parametrize("activation", [None, "relu"])
def test_a_unet_computes_its_text_once_for_both(
    host: Host, activation: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, own = list[float](), BothSides.of
    monkeypatch.setattr(
        BothSides, "of", lambda self, context, m: asked.append(m) or own(self, context, m)
    )
    content, made = host.network(activation, activate_output=False)
    # With another multiplier for the keys, they are computed apart.
    for spec, weights, count in (("0.8", (0.8, 0.8), 1), ("0.8:k=0.5", (0.4, 0.8), 0)):
        recorder = Recorder(host)
        asked.clear()
        with hn.apply(host.unet, [(made, spec)]):
            recorder.watch()
            host.run(host.context())
        recorder.stop()
        assert asked == [0.8] * count
        for seen in recorder.seen:
            expected = stacked([(content, weights[seen.side])], seen.before.float(), seen.side)
            assert seen.error(expected) <= 1e-5
            assert seen.error(seen.before) > 1e-2


@torch.no_grad()
def test_a_context_that_is_changed_between_keys_and_values_is_read_anew(host: Host) -> None:
    content, made = host.network("relu", activate_output=False)
    site = next(site for site in host.sites if site.kind == "cross")
    context = host.context()
    with hn.apply(host.unet, [(made, 0.8)]) as handle:
        handle.seam.call.begin(None)
        site.to_k(context)
        context.mul_(-1)
        value = site.to_v(context)
        handle.seam.call.end()
    expected = stacked([(content, 0.8)], context, 1) @ site.to_v.weight.mT  # type: ignore[union-attr]
    assert relative_error(value, expected) <= 1e-5
