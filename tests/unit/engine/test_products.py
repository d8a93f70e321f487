"""The fast routes of the engine's products: that they are taken, and that they compute the same."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Recipe, relative_error, stacked
from torch import nn

import hypernetworks as hn
from hypernetworks.engine import products, stack
from hypernetworks.engine.magnitudes import LARGEST_CONTEXT, largest_output
from hypernetworks.engine.stack import KEY, Stack


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(recipe: Recipe) -> hn.Hypernetwork:
    content = recipe.content()
    structure = hn.Structure(
        tuple(map(float, recipe.layer_structure)), recipe.activation or "linear", recipe.activate_output,
        recipe.layer_norm,
    )  # fmt: skip
    return hn.Hypernetwork.from_tensors("n", structure, {w: content[w] for w in recipe.widths})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What goes through ``F.linear``, as against oneDNN."""
    seen, original = list[str](), F.linear
    monkeypatch.setattr(
        products.F, "linear", lambda *arguments: seen.append("F.linear") or original(*arguments)
    )
    return seen


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_relu_at_the_end_of_a_product(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's route, on the CPU, whose kernels compute the same."""
    inputs, weight, bias = (
        tensor.to(dtype) for tensor in (drawn(2, 7, 24), drawn(48, 24, seed=1), drawn(48, seed=2))
    )
    plain = products.linear(inputs, weight, bias, nn.ReLU())
    assert products.cublas_works(torch.device("cpu"))
    monkeypatch.setattr(products, "FUSING", ("cpu",))
    monkeypatch.setattr(products.F, "linear", None)
    with torch.no_grad():
        fused = products.linear(inputs, weight, bias, nn.ReLU())
    assert fused.shape == plain.shape == (2, 7, 48)
    assert (fused.dtype, float(fused.min())) == (dtype, 0.0)
    assert relative_error(fused, plain) <= (2e-3 if dtype is torch.float16 else 1.6e-2)


def test_an_operator_that_computes_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = torch.ops.aten._addmm_activation
    monkeypatch.setattr(torch.ops.aten, "_addmm_activation", lambda *given: right(*given) + 1)
    assert not products.cublas_works.__wrapped__(torch.device("cpu"))


@pytest.mark.parametrize(
    ("activation", "kernels"),
    [
        ("relu", ["_addmm_activation", "addmm", "add"]),
        ("swish", ["addmm", "hardswish", "addmm", "add"]),
    ],
)
def test_the_kernels_of_a_network_on_cuda(activation: str, kernels: list[str]) -> None:
    """Counted on the meta device: no conversion, and no pass that a product could make itself."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: list[str] = []

    class Noting(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    made = network(Recipe((8,), activation=activation, activate_output=False))
    made.to("meta", torch.float16)
    context = torch.empty(2, 5, 8, dtype=torch.float16, device="meta")
    with torch.no_grad():
        made.step(context, KEY, 0.8)
        with Noting():
            made.step(context, KEY, 0.8)
    views = {"view", "t", "transpose", "_unsafe_view", "detach", "alias"}
    assert [name for name in seen if name not in views] == kernels


@pytest.mark.skipif(not products.onednn_works(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("kind", [None, *products.FUSED])
@pytest.mark.parametrize("with_bias", [False, True])
def test_fused_products(kind: type[nn.Module] | None, with_bias: bool, calls: list[str]) -> None:
    inputs, weight, bias = (
        drawn(2, 7, 24),
        drawn(48, 24, seed=1),
        drawn(48, seed=2) if with_bias else None,
    )
    activation = kind() if kind is not None else None
    with torch.no_grad():
        fused = products.linear(inputs, weight, bias, activation)
        assert calls == []
    plain = products.linear(inputs, weight, bias, activation)
    assert calls == ["F.linear"], "with gradients on, what autograd knows"
    assert fused.shape == plain.shape == (2, 7, 48)
    assert relative_error(fused, plain) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_go_the_plain_way(dtype: torch.dtype, calls: list[str]) -> None:
    with torch.no_grad():
        result = products.linear(drawn(3, 8).to(dtype), drawn(8, 8).to(dtype), None)
    assert result.dtype == dtype
    assert calls == ["F.linear"]


@pytest.mark.parametrize("fault", ["missing", "wrong"])
def test_without_onednn_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, calls: list[str], fault: str
) -> None:
    def broken(inputs: torch.Tensor, weight: torch.Tensor, *_: object) -> torch.Tensor:
        if fault == "missing":
            raise RuntimeError("no such operator")
        return inputs @ weight.T + 1

    class Operators:
        class mkldnn:  # noqa: N801
            _linear_pointwise = staticmethod(broken)

    products.onednn_works.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(products.torch, "ops", Operators)
            with torch.no_grad():
                inputs, weight = drawn(3, 8), drawn(8, 8, seed=1)
                result = products.linear(inputs, weight, None, nn.ReLU())
            assert not products.onednn_works()
        assert "F.linear" in calls
        assert relative_error(result, torch.relu(inputs @ weight.T)) <= 1e-6
    finally:
        products.onednn_works.cache_clear()


def test_noncontiguous_and_empty_inputs() -> None:
    with torch.no_grad():
        weight = drawn(16, 8)
        turned = drawn(8, 5).T
        assert relative_error(products.linear(turned, weight, None), turned @ weight.T) <= 1e-6
        assert products.linear(drawn(0, 8), weight, None).shape == (0, 16)


# Half precision, as an accelerator would compute


def multiplies_on_cpu(dtype: torch.dtype) -> bool:
    """Torch 2.1 has no half precision products on a CPU."""
    try:
        torch.ones(2, 2, dtype=dtype) @ torch.ones(2, 2, dtype=dtype)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize(
    "dtype", [d for d in (torch.float16, torch.bfloat16) if multiplies_on_cpu(d)]
)
@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
def test_half_precision_without_a_round_trip(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, activation: str | None
) -> None:
    recipe = Recipe((32,), activation=activation)
    net, context = network(recipe), drawn(2, 9, 32).to(dtype)
    asked, original = [], net.delta
    monkeypatch.setattr(
        net, "delta", lambda *arguments: asked.append(arguments[3]) or original(*arguments)
    )
    monkeypatch.setattr(stack, "_may_be_half", lambda *_: True)
    with torch.no_grad():
        half = Stack([net]).transform(context, KEY, [0.8], exact=False)
        exact = Stack([net]).transform(context, KEY, [0.8])
    assert asked == [dtype, torch.float32]
    expected = stacked([(recipe.content(), 0.8)], context.float(), KEY)
    tolerance = 4e-3 if dtype == torch.float16 else 3e-2
    assert half.dtype == exact.dtype == dtype
    assert relative_error(half.float(), expected) <= tolerance
    assert relative_error(exact.float(), expected) <= tolerance / 2


def test_a_cpu_stays_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(Recipe((32,), activation="relu"))
    asked, original = [], net.delta
    monkeypatch.setattr(
        net, "delta", lambda *arguments: asked.append(arguments[3]) or original(*arguments)
    )
    Stack([net]).transform(drawn(2, 9, 32).half(), KEY, [0.8], exact=False)
    assert asked == [torch.float32]


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100), layer_norm=st.booleans())
def test_the_largest_number_is_not_underestimated(
    seed: int, scale: float, layer_norm: bool
) -> None:
    mlp = (
        network(Recipe((16,), activation="relu", seed=seed, layer_norm=layer_norm))
        .pairs[16][KEY]
        .linear
    )
    for parameter in mlp.parameters():
        parameter.data.mul_(scale)
    numbers, context = [], drawn(4, 5, 16, seed=seed).clamp(-LARGEST_CONTEXT, LARGEST_CONTEXT)
    with torch.no_grad():
        for module in mlp:
            context = module(context)
            numbers.append(float(context.abs().max()))
    assert max(numbers) <= largest_output(mlp, 16) * 1.001


def test_strong_or_broken_networks_are_not_computed_in_half() -> None:
    net = network(Recipe((32,), activation="relu"))
    assert net.largest_output(32, KEY) < stack.LARGEST_HALF
    for factor in (1e4, math.nan):
        strong = network(Recipe((32,), activation="relu"))
        for parameter in strong.parameters():
            parameter.data = parameter.data * factor
        assert not strong.largest_output(32, KEY) < stack.LARGEST_HALF
