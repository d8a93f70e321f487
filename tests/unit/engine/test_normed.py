"""Activation and layer norm as one kernel: where it is used, and where torch's own are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from reference import Recipe, relative_error, stacked
from torch import nn

import hypernetworks as hn
from hypernetworks.engine import network as networks
from hypernetworks.engine import normed
from hypernetworks.engine.stack import Stack

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def unchecked() -> Iterator[None]:
    """What was found out about a device here is forgotten."""
    normed._checked.cache_clear()
    yield
    normed._checked.cache_clear()


def as_torch(kind: type[nn.Module]) -> normed.Normed:
    """A kernel that is right."""
    return lambda x, weight, bias, eps: F.layer_norm(kind()(x), weight.shape, weight, bias, eps)


def made(recipe: Recipe) -> hn.Hypernetwork:
    content = recipe.content()
    structure = hn.Structure(
        tuple(map(float, recipe.layer_structure)),
        recipe.activation or "linear",
        recipe.activate_output,
        recipe.layer_norm,
        (0.0,) * len(recipe.layer_structure),
    )
    return hn.Hypernetwork.from_tensors("n", structure, {8: content[8]})


@torch.no_grad()
@pytest.mark.parametrize("activation", ["relu", "swish", "gelu", "tanh"])
@pytest.mark.parametrize("last", [True, False])
def test_networks_use_it_for_each_norm_after_an_activation(
    activation: str, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe((8,), activation=activation, layer_norm=True, activate_output=last)
    asked: list[type[nn.Module]] = []

    def found(module: nn.Module, *_: object) -> normed.Normed | None:
        if type(module) not in normed.ACTIVATIONS:
            return None
        right = as_torch(type(module))
        return lambda *given: asked.append(type(module)) or right(*given)  # type: ignore[func-returns-value]

    monkeypatch.setattr(networks, "normed", found)
    x = torch.randn(2, 5, 8)
    changed = Stack([made(recipe)]).transform(x, 0, [0.8])
    assert relative_error(changed, stacked([(recipe.content(), 0.8)], x, 0)) <= 1e-5
    assert len(asked) == (0 if activation == "tanh" else 1 + last)


@pytest.mark.parametrize("fault", ["missing", "raises", "wrong"])
def test_without_a_kernel_that_is_right_there_is_none(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(kind: type[nn.Module]) -> normed.Normed:
        if fault == "missing":
            raise ImportError("No module named 'triton'")
        right = as_torch(kind)
        if fault == "raises":
            return lambda *_: (_ for _ in ()).throw(RuntimeError("failed to find a C compiler"))  # type: ignore[return-value]
        return lambda x, *rest: right(x, *rest) + 0.1

    monkeypatch.setattr(normed, "compiled", broken)
    assert normed._checked(nn.ReLU, CPU, torch.float16) is None
    normed._checked.cache_clear()
    monkeypatch.setattr(normed, "compiled", as_torch)
    assert normed._checked(nn.ReLU, CPU, torch.float16) is not None


def test_only_graphics_cards_in_half_precision_have_one() -> None:
    relu, cuda = nn.ReLU(), torch.device("cuda")
    assert normed.normed(relu, 640, CPU, torch.float16) is None
    assert normed.normed(nn.Tanh(), 640, cuda, torch.float16) is None
    assert normed.normed(relu, normed.WIDEST + 1, cuda, torch.float16) is None
    if not torch.cuda.is_available():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
            assert normed.normed(relu, 640, cuda, torch.float32) is None


@pytest.mark.slow
def test_the_kernel_in_tritons_interpreter() -> None:
    """Which needs no card."""
    if find_spec("triton") is None:
        pytest.skip("needs triton")
    code = (
        "import torch; from hypernetworks.engine import normed as n\n"
        "for kind in n.ACTIVATIONS:\n"
        "  for dtype in (torch.float16, torch.bfloat16):\n"
        "    assert n.agrees(n.compiled(kind), kind(), torch.device('cpu'), dtype), (kind, dtype)\n"
        "gelu = n.compiled(torch.nn.GELU)\n"
        "assert not n.agrees(gelu, torch.nn.ReLU(), torch.device('cpu'), torch.float16)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stderr
