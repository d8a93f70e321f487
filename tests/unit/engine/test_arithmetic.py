"""The engine against the reference, over random networks, stacks, multipliers and dtypes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import (
    ACTIVATIONS,
    BATCH_COUPLING,
    Content,
    Recipe,
    Reference,
    recipes,
    relative_error,
    stacked,
)
from torch import nn

import hypernetworks as hn
from hypernetworks.engine import structure
from hypernetworks.engine.affine import AffineMap, chain, collapse
from hypernetworks.engine.stack import KEY, VALUE, Stack

TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}
MULTIPLIERS = st.one_of(
    st.sampled_from([1.0, -1.0, 0.5, 0.7, 1e-3, 30.0]),
    st.floats(-2, 2, allow_subnormal=False).filter(bool),
)
SIDES = pytest.mark.parametrize("side", [KEY, VALUE])


def network(recipe: Recipe, content: Content) -> hn.Hypernetwork:
    """The engine's network, made without a file."""
    description = hn.Structure(
        layer_structure=tuple(map(float, recipe.layer_structure)),
        activation=recipe.activation or "linear",
        activate_output=recipe.activate_output,
        layer_norm=recipe.layer_norm,
        dropout=recipe.dropout or (0.0,) * len(recipe.layer_structure),
    )
    return hn.Hypernetwork.from_tensors("test", description, {w: content[w] for w in recipe.widths})


def context(
    dim: int, shape: tuple[int, int] = (2, 5), dtype: torch.dtype = torch.float32, seed: int = 1
) -> torch.Tensor:
    """A random ``(batch, tokens, dim)``."""
    return torch.randn(*shape, dim, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_every_activation_of_the_format_is_known() -> None:
    assert set(ACTIVATIONS) <= set(structure.ACTIVATIONS)
    assert not set(structure.UNBUILDABLE) & set(structure.ACTIVATIONS)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activate_output", [False, True])
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_every_activation(activation: str | None, activate_output: bool, layer_norm: bool) -> None:
    recipe = Recipe((8,), (1, 2, 1.5, 1), activation, activate_output, layer_norm, (0, 0.3, 0, 0))
    content, x = recipe.content(), context(8, (3, 4))
    for side, changed in enumerate(network(recipe, content).transform(x, 0.8)):
        assert relative_error(changed, stacked([(content, 0.8)], x, side)) <= 1e-5
        assert not torch.equal(changed, x)


def test_swish_is_hardswish_and_not_silu() -> None:
    recipe = Recipe(activation="swish")
    content, x = recipe.content(), 3 * context(8)
    as_silu = stacked([(content | {"activation_func": "silu"}, 1)], x, KEY)
    assert relative_error(network(recipe, content).transform(x)[KEY], as_silu) > 1e-3


@pytest.mark.parametrize("activation", BATCH_COUPLING)
def test_softmax_and_its_kin_couple_the_batch(activation: str) -> None:
    recipe = Recipe(activation=activation)
    net, x = network(recipe, recipe.content()), context(8, (3, 4))
    alone, together = net.transform(x[:1])[KEY], net.transform(x)[KEY][:1]
    assert relative_error(alone, together) > 1e-3


@pytest.mark.slow
@settings(max_examples=100)
@given(recipe=recipes(), multiplier=MULTIPLIERS, batch=st.integers(1, 3), tokens=st.integers(1, 6))
def test_random_networks(recipe: Recipe, multiplier: float, batch: int, tokens: int) -> None:
    content = recipe.content()
    net = network(recipe, content)
    assert net.widths == tuple(sorted(recipe.widths))
    for width in recipe.widths:
        x = context(width, (batch, tokens), seed=recipe.seed)
        key, value = net.transform(x, multiplier)
        assert relative_error(key, stacked([(content, multiplier)], x, KEY)) <= 1e-5
        assert relative_error(value, stacked([(content, multiplier)], x, VALUE)) <= 1e-5
        assert torch.equal(Stack([net]).transform(x, KEY, [multiplier]), key)


@settings(max_examples=60)
@given(
    recipe=recipes(dtypes=(torch.float16, torch.bfloat16, torch.float32, torch.float64)),
    dtype=st.sampled_from(list(TOLERANCES)),
    multiplier=st.floats(-2, 2, allow_subnormal=False).filter(bool),
)
def test_dtypes_of_file_and_context(recipe: Recipe, dtype: torch.dtype, multiplier: float) -> None:
    content, width = recipe.content(), recipe.widths[0]
    x = context(width, dtype=dtype, seed=recipe.seed)
    for side, changed in enumerate(network(recipe, content).transform(x, multiplier)):
        expected = stacked(
            [(content, multiplier)], x, side, torch.promote_types(dtype, torch.float32)
        )
        assert (changed.dtype, changed.shape, changed.device) == (x.dtype, x.shape, x.device)
        assert relative_error(changed, expected) <= TOLERANCES[dtype]


@pytest.mark.slow
@settings(max_examples=60)
@given(
    parts=st.lists(st.tuples(recipes(widths=(6, 8)), MULTIPLIERS), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    order=st.randoms(use_true_random=False),
    side=st.sampled_from([KEY, VALUE]),
)
def test_stacks_in_order(
    parts: list[tuple[Recipe, float]], dtype: torch.dtype, order: object, side: int
) -> None:
    made = [(recipe, recipe.content(), multiplier) for recipe, multiplier in parts]
    made.append(order.choice(made))  # type: ignore[attr-defined]  # one network stands in it twice
    stack = Stack([network(recipe, content) for recipe, content, _ in made])
    multipliers = [multiplier for *_, multiplier in made]
    for width in stack.widths:
        x = context(width, dtype=dtype)
        expected = stacked([(content, multiplier) for _, content, multiplier in made], x, side)
        assume(float(expected.abs().max()) < 6e4)  # the largest fp16 number
        assert relative_error(stack.transform(x, side, multipliers), expected) <= TOLERANCES[dtype]


@SIDES
def test_the_order_of_a_stack_matters(side: int) -> None:
    first, second = Recipe(activation="relu", seed=1), Recipe(activation="tanh", seed=2)
    nets = [network(recipe, recipe.content()) for recipe in (first, second)]
    x = context(8)
    forward, backward = (
        Stack(nets).transform(x, side, [1, 1]),
        Stack(nets[::-1]).transform(x, side, [1, 1]),
    )
    assert relative_error(forward, backward) > 1e-2
    assert (
        relative_error(forward, stacked([(first.content(), 1), (second.content(), 1)], x, side))
        <= 1e-5
    )


@pytest.mark.parametrize("activation", [None, "relu"])
def test_the_same_network_twice_is_two_applications(activation: str | None) -> None:
    recipe = Recipe(activation=activation)
    content, x = recipe.content(), context(8)
    net = network(recipe, content)
    twice = Stack([net, net]).transform(x, KEY, [0.5, 0.25])
    assert relative_error(twice, stacked([(content, 0.5), (content, 0.25)], x, KEY)) <= 1e-5
    assert relative_error(twice, stacked([(content, 0.75)], x, KEY)) > 1e-4


@settings(max_examples=50)
@given(recipe=recipes(activations=(None, "linear")))
def test_collapsing_in_float64(recipe: Recipe) -> None:
    assume(recipe.is_linear)
    content, width = recipe.content(), recipe.widths[0]
    net = network(recipe, content)
    x = context(width, dtype=torch.float64, seed=recipe.seed)
    for side in (KEY, VALUE):
        affine = collapse(list(net.pairs[width][side].linear))
        assert affine.weight.dtype == affine.bias.dtype == torch.float64
        expected = Reference(content, torch.float64)(x, side, 1.0) - x
        assert relative_error(affine(x), expected) <= 1e-13
        assert isinstance(net.delta(width, side, x.device, torch.float32), AffineMap)


@settings(max_examples=50)
@given(
    parts=st.lists(
        st.tuples(
            st.integers(0, 99), st.sampled_from([(1, 2, 1), (1, 1), (1, 0.5, 3, 1)]), MULTIPLIERS
        ),
        min_size=1,
        max_size=4,
    )
)
def test_chaining_in_float64(parts: list[tuple[int, tuple[float, ...], float]]) -> None:
    made = [
        (Recipe(layer_structure=layers, seed=seed), multiplier)
        for seed, layers, multiplier in parts
    ]
    maps = [
        (collapse(list(network(recipe, recipe.content()).pairs[8][KEY].linear)), multiplier)
        for recipe, multiplier in made
    ]
    x = context(8, dtype=torch.float64)
    expected = stacked(
        [(recipe.content(), multiplier) for recipe, multiplier in made], x, KEY, torch.float64
    )
    assert relative_error(x + chain(maps)(x), expected) <= 1e-12


def test_folding_into_a_projection_is_exact() -> None:
    recipe = Recipe(layer_structure=(1, 2, 2, 1))
    content, x = recipe.content(), context(8, dtype=torch.float64)
    projection = torch.randn(5, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    added = chain([(collapse(list(network(recipe, content).pairs[8][VALUE].linear)), -0.6)])
    folded = x @ (projection + projection @ added.weight).T + projection @ added.bias
    assert (
        relative_error(folded, stacked([(content, -0.6)], x, VALUE, torch.float64) @ projection.T)
        <= 1e-13
    )


@pytest.mark.parametrize("activation", [None, "relu"])
def test_multiplier_0_and_foreign_widths_give_the_same_object(activation: str | None) -> None:
    recipe = Recipe(activation=activation)
    net = network(recipe, recipe.content())
    x, foreign = context(8), context(9)
    assert all(side is x for side in net.transform(x, 0))
    assert all(side is x for side in net.transform(x, -0.0))
    assert all(side is foreign for side in net.transform(foreign, 2.0))
    assert Stack([net, net]).transform(x, KEY, [0, 0.0]) is x
    assert Stack([net]).transform(foreign, VALUE, [1]) is foreign
    assert Stack([]).transform(x, KEY, []) is x
    assert Stack([net]).transform(x, KEY, [1]) is not x


@settings(max_examples=60)
@given(recipe=recipes())
def test_input_and_random_state_stay_untouched(recipe: Recipe) -> None:
    net, x = network(recipe, recipe.content()), context(recipe.widths[0])
    before, state = x.clone(), torch.random.get_rng_state()
    parameters = [p.clone() for p in net.parameters()]
    first = net.transform(x, 1.3)
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(map(torch.equal, net.parameters(), parameters))
    assert all(map(torch.equal, net.transform(x, 1.3), first)), "dropout must be off"


def test_a_context_that_is_a_strided_view() -> None:
    recipe = Recipe(activation="gelu")
    content, x = recipe.content(), context(16).transpose(0, 1)[..., ::2]
    assert (
        relative_error(
            network(recipe, content).transform(x)[VALUE], stacked([(content, 1)], x, VALUE)
        )
        <= 1e-5
    )


@pytest.mark.parametrize("activation", [None, "relu"])
def test_autocast_does_not_lower_the_precision(activation: str | None) -> None:
    recipe = Recipe(activation=activation)
    net, x = network(recipe, recipe.content()), context(8)
    expected = net.transform(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nn.functional.linear(x, torch.eye(8)).dtype == torch.bfloat16, "autocast is not on"
        assert all(map(torch.equal, net.transform(x), expected))
        assert torch.equal(Stack([net]).transform(x, KEY, [1]), expected[KEY])


@pytest.mark.parametrize("activation", [None, "relu", "prelu"])
def test_made_ready_under_inference_mode_still_passes_gradients(activation: str | None) -> None:
    recipe = Recipe(activation=activation, layer_norm=activation == "relu")
    net = network(recipe, recipe.content())
    with torch.inference_mode():
        net.transform(context(8))
    x = context(8).requires_grad_()
    net.transform(x)[KEY].sum().backward()
    assert x.grad is not None
    assert bool(x.grad.abs().max() > 0)


def test_a_fresh_network_is_the_identity_and_learns() -> None:
    net = hn.Hypernetwork.create(
        "fresh", hn.Structure(activation="relu", activate_output=False), (8,)
    )
    x = context(8)
    assert all(torch.equal(side, x) for side in net.transform(x))
    net.train()
    net.transform(x)[VALUE].sum().backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.sub_(parameter.grad if parameter.grad is not None else 0)
    net.train(False)
    changed = net.transform(x)
    assert not torch.equal(changed[VALUE], x), "what it learned is used"
    assert not changed[VALUE].requires_grad


def test_training_turns_dropout_on_and_use_turns_it_off() -> None:
    recipe = Recipe(activation="relu", layer_structure=(1, 4, 1), dropout=(0, 0.3, 0))
    net, x = network(recipe, recipe.content()), context(8)
    used = net.transform(x)[KEY]
    net.train()
    assert not torch.equal(net.transform(x)[KEY], net.transform(x)[KEY])
    net.train(False)
    assert torch.equal(net.transform(x)[KEY], used)


def test_tensors_of_the_file_are_adopted_and_not_copied() -> None:
    recipe = Recipe(dtype=torch.float16)
    content = recipe.content()
    net = network(recipe, content)
    assert net.dtype == torch.float16
    assert (
        net.pairs[8][KEY].linear[0].weight.data_ptr()
        == content[8][KEY]["linear.0.weight"].data_ptr()
    )


@pytest.mark.parametrize(
    ("layers", "dim", "widths"),
    [((1, 1.5, 1), 5, (5, 7, 5)), ((1, 0.3, 2.99, 1), 10, (10, 3, 29, 10))],
)
def test_widths_are_truncated_to_integers(
    layers: tuple[float, ...], dim: int, widths: tuple[int, ...]
) -> None:
    assert hn.Structure(layers, dropout=(0.0,) * len(layers)).widths(dim) == widths


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"layer_structure": (1.0,)}, "layer structure"),
        ({"layer_structure": (2.0, 1.0)}, "layer structure"),
        ({"layer_structure": (1.0, -2.0, 1.0)}, "layer structure"),
        ({"activation": "glu"}, "halves the width"),
        ({"activation": "threshold"}, "not stored"),
        ({"activation": "multiheadattention"}, "one tensor"),
        ({"activation": "magic"}, "unknown"),
        ({"dropout": (0.0, 0.0)}, "2 entries"),
        ({"dropout": (0.0, 1.0, 0.0)}, "probabilities"),
    ],
)
def test_structures_that_can_not_be(
    description: dict[str, tuple[float, ...]], message: str
) -> None:
    with pytest.raises(hn.HypernetworkError, match=message):
        hn.Structure(**description)  # type: ignore[arg-type]
