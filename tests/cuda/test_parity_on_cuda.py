"""The arithmetic on the device against the reference on the CPU: fp32 without TF32, fp16, bf16, and
in autocast.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from laws.hosts import Recorder, make
from reference import ACTIVATIONS, Recipe, recipes, relative_error, stacked

import hypernetworks as hn
from hypernetworks.engine.stack import Stack

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Of contexts, computed in fp32 and rounded once."""
HALF = {torch.float32: 1e-5, torch.float16: 8e-3, torch.bfloat16: 5e-2}
"""Of contexts in self-attention, which may be computed in half precision throughout."""
JUMPS = ("hardshrink",)
"""Activations that aren't continuous."""
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)


def network(recipe: Recipe) -> tuple[dict[object, object], hn.Hypernetwork]:
    """As the reference and as the engine see it."""
    content = recipe.content()
    structure = hn.Structure(
        tuple(map(float, recipe.layer_structure)),
        recipe.activation or "linear",
        recipe.activate_output,
        recipe.layer_norm,
        recipe.dropout or (0.0,) * len(recipe.layer_structure),
    )
    tensors = {width: content[width] for width in recipe.widths}
    return content, hn.Hypernetwork.from_tensors("test", structure, tensors)


def context(width: int, dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    """``(2, 5, width)`` on the device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 5, width, generator=generator).to(DEVICE, dtype)


@DTYPES
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_every_activation(activation: str | None, exact: bool, dtype: torch.dtype) -> None:
    content, made = network(Recipe((8,), activation=activation, layer_norm=activation == "tanh"))
    x = context(8, dtype)
    for side in (0, 1):
        changed = Stack([made]).transform(x, side, [0.8], exact=exact)
        expected = stacked([(content, 0.8)], x.float(), side)
        assert (changed.dtype, changed.device, changed.shape) == (x.dtype, x.device, x.shape)
        assert not torch.equal(changed, x)
        if not exact and activation in JUMPS and dtype is torch.bfloat16:
            continue  # rounded to the other side of the jump, a number is another
        assert relative_error(changed, expected) <= (TOLERANCES if exact else HALF)[dtype]


@settings(max_examples=60)
@given(
    parts=st.lists(
        st.tuples(recipes(widths=(6, 8)), st.sampled_from([1.0, -1.0, 0.5, 1e-3])),
        min_size=1,
        max_size=3,
    ),
    dtype=st.sampled_from(list(TOLERANCES)),
    side=st.sampled_from([0, 1]),
)
def test_random_stacks(parts: list[tuple[Recipe, float]], dtype: torch.dtype, side: int) -> None:
    made = [(*network(recipe), multiplier) for recipe, multiplier in parts]
    stack = Stack([net for _, net, _ in made])
    for width in stack.widths:
        x = context(width, dtype)
        expected = stacked([(content, m) for content, _, m in made], x.float(), side)
        assume(float(expected.abs().max()) < 6e4)  # the largest fp16 number
        changed = stack.transform(x, side, [m for *_, m in made])
        assert relative_error(changed, expected) <= TOLERANCES[dtype]


@DTYPES
@pytest.mark.parametrize("name", ["ldm", "sdxl"])
@pytest.mark.parametrize("activation", [None, "relu", "relu, folded", "gelu, folded"])
def test_every_projection_of_a_unet(name: str, activation: str | None, dtype: torch.dtype) -> None:
    """Those that are folded have nothing after their last layer; keys and values are computed
    together from the second call on.
    """
    host = make(name)
    kind, _, folded = (activation or "").partition(", ")
    content, made = host.network(kind or None, activate_output=not folded)
    host.unet.to(dtype)
    recorder = Recorder(host)
    with torch.no_grad(), hn.apply(host.unet, [(made, 0.8)]) as handle:
        host.run(host.context())
        recorder.watch()
        host.run(host.context())
        is_folded = "folded" in handle.paths.values()
    recorder.stop()
    on_card = DEVICE == "cuda" and dtype != torch.float32
    assert is_folded == (activation is None or (bool(folded) and on_card))
    assert len(recorder.seen) == 2 * len(host.sites)
    for seen in recorder.seen:
        expected = stacked([(content, 0.8)], seen.before.float(), seen.side)
        assert seen.output.dtype == dtype
        assert seen.error(expected) <= HALF[dtype]
        assert seen.error(seen.before) > 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_in_autocast_cross_attention_is_computed_in_fp32(
    device: str, activation: str | None, dtype: torch.dtype
) -> None:
    host = make("sd1")
    content, made = host.network(activation)
    recorder = Recorder(host)
    with hn.apply(host.unet, [(made, 0.8)]), torch.autocast(device, dtype):
        recorder.watch()
        host.run(host.context())
    recorder.stop()
    for seen in recorder.seen:
        expected = stacked([(content, 0.8)], seen.before.float(), seen.side)
        assert seen.after.dtype == seen.before.dtype
        assert seen.error(expected) <= HALF[dtype]
        if seen.site.kind == "cross" and seen.before.dtype == torch.float32:
            assert relative_error(seen.after, expected) <= 1e-5
