"""The yardstick: AUTOMATIC1111's hypernetwork arithmetic in the plainest form, and random
dictionaries to measure.

Written from the format's description alone. It shares no code with the package under test, not even
its table of activations, and it is slow and obvious on purpose.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "celu": nn.CELU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "hardshrink": nn.Hardshrink,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "hardtanh": nn.Hardtanh,
    "leakyrelu": nn.LeakyReLU,
    "logsigmoid": nn.LogSigmoid,
    "logsoftmax": nn.LogSoftmax,
    "mish": nn.Mish,
    "prelu": nn.PReLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "rrelu": nn.RReLU,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softmax": nn.Softmax,
    "softmax2d": nn.Softmax2d,
    "softmin": nn.Softmin,
    "softplus": nn.Softplus,
    "softshrink": nn.Softshrink,
    "softsign": nn.Softsign,
    "swish": nn.Hardswish,
    "tanh": nn.Tanh,
    "tanhshrink": nn.Tanhshrink,
}
"""Every activation that a file may name and that can be built without arguments."""
BATCH_COUPLING = ("softmax", "softmin", "logsoftmax", "softmax2d")
"""On ``(batch, tokens, dim)`` torch takes dimension 0 for these."""

Content = dict[Any, Any]
"""What a ``.pt`` holds: ``{size: (state dict for keys, state dict for values), metadata…}``."""


@dataclass(frozen=True)
class Recipe:
    """A hypernetwork to make: everything that its file would say, and a seed for the numbers."""

    widths: tuple[int, ...] = (8,)
    layer_structure: tuple[float, ...] = (1, 2, 1)
    activation: str | None = None
    activate_output: bool = True
    layer_norm: bool = False
    dropout: tuple[float, ...] | None = None
    dtype: torch.dtype = torch.float32
    seed: int = 0

    @property
    def is_linear(self) -> bool:
        """Whether the network is an affine map."""
        return self.activation in (None, "linear") and not self.layer_norm

    def content(self) -> Content:
        """The dictionary as AUTOMATIC1111 1.10.1 would save it."""
        generator = torch.Generator().manual_seed(self.seed)
        dropout = list(self.dropout or [0] * len(self.layer_structure))
        content: Content = {
            width: (self._state(width, dropout, generator), self._state(width, dropout, generator))
            for width in self.widths
        }
        return content | {
            "step": 1000 + self.seed,
            "name": "inner",
            "layer_structure": list(self.layer_structure),
            "activation_func": self.activation,
            "is_layer_norm": self.layer_norm,
            "weight_initialization": "Normal",
            "sd_checkpoint": "fe4efff1e1",
            "sd_checkpoint_name": "model",
            "activate_output": self.activate_output,
            "use_dropout": any(dropout),
            "dropout_structure": dropout,
            "last_layer_dropout": bool(dropout[-2]),
            "optional_info": "made by a test",
        }

    def _state(
        self, width: int, dropout: Sequence[float], generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        shapes = _sequential(
            width,
            self.layer_structure,
            self.activation,
            self.activate_output,
            self.layer_norm,
            dropout,
        ).state_dict()
        return {
            f"linear.{key}": _numbers(tuple(shape.shape), key, generator).to(self.dtype)
            for key, shape in shapes.items()
        }


def _numbers(shape: tuple[int, ...], key: str, generator: torch.Generator) -> torch.Tensor:
    """Numbers of a size that keeps activations busy: neither all saturated nor all dead."""
    drawn = torch.randn(shape, generator=generator)
    if len(shape) == 2:
        return drawn / shape[1] ** 0.5
    return 1 + 0.2 * drawn if key.endswith("weight") else 0.3 * drawn


class _Unfilled(nn.Linear):
    """Draws no numbers: that takes most of the time, and changes the random state."""

    def reset_parameters(self) -> None:
        """Leave them as they are."""


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer whose numbers come from a file."""
    layer = _Unfilled(inputs, outputs)
    layer.__class__ = nn.Linear  # what is pickled can be read without this file
    return layer


def _sequential(
    width: int,
    layer_structure: Sequence[float],
    activation: str | None,
    activate_output: bool,
    layer_norm: bool,
    dropout: Sequence[float],
) -> nn.Sequential:
    """Linear, activation, layer norm, dropout; again for every layer; each only where the file asks
    for it."""
    sizes = [int(width * multiple) for multiple in layer_structure]
    modules: list[nn.Module] = []
    for layer in range(1, len(sizes)):
        is_last = layer == len(sizes) - 1
        modules.append(_linear(sizes[layer - 1], sizes[layer]))
        if activation not in (None, "linear") and (activate_output or not is_last):
            modules.append(ACTIVATIONS[activation]())
        if layer_norm:
            modules.append(nn.LayerNorm(sizes[layer]))
        if dropout[layer] > 0:
            modules.append(nn.Dropout(dropout[layer]))
    return nn.Sequential(*modules)


def rebuilt_dropout(layers: int, use_dropout: bool, last_layer_dropout: bool) -> list[float]:
    """Dropout of files that only say yes or no: none at the ends, 0.3 between, the last hidden
    layer by its flag."""
    probabilities = [0.0] * layers
    if use_dropout:
        for hidden in range(1, layers - 1):
            probabilities[hidden] = 0.3 if hidden < layers - 2 or last_layer_dropout else 0.0
    return probabilities


class Reference:
    """One network of a dictionary, ready to compute. Absent keys get AUTOMATIC1111's defaults."""

    def __init__(self, content: Mapping[Any, Any], dtype: torch.dtype = torch.float32) -> None:
        self.content, self.dtype = content, dtype
        self._loaded: dict[tuple[int, int], nn.Sequential] = {}

    @property
    def pairs(self) -> dict[int, tuple[nn.Sequential, ...]]:
        """Width -> the networks for keys and for values."""
        widths = [width for width in self.content if type(width) is int]
        return {
            width: tuple(self._load(width, side) for side in range(len(self.content[width])))
            for width in widths
        }

    def _load(self, size: int, side: int) -> nn.Sequential:
        """One network, when it is first asked for: a stack looks at one width and side."""
        if (size, side) in self._loaded:
            return self._loaded[size, side]

        content, state = self.content, self.content[size][side]
        layers = content.get("layer_structure", [1, 2, 1])
        dropout = content.get("dropout_structure")
        if dropout is None:
            flags = content.get("use_dropout", False), content.get("last_layer_dropout", False)
            dropout = rebuilt_dropout(len(layers), *flags)
        sequential = _sequential(
            size,
            layers,
            content.get("activation_func"),
            content.get("activate_output", True),
            content.get("is_layer_norm", False),
            dropout,
        )
        tensors = {
            key.removeprefix("linear."): tensor.detach().clone() for key, tensor in state.items()
        }
        sequential.load_state_dict(tensors, strict=True, assign=True)
        loaded = sequential.to(self.dtype).eval().requires_grad_(False)
        self._loaded[size, side] = loaded
        return loaded

    def __call__(self, context: torch.Tensor, side: int, multiplier: float) -> torch.Tensor:
        """``x + multiplier * mlp(x)`` on the CPU; side 0 is for keys, 1 for values."""
        context = context.to("cpu", self.dtype)
        if context.shape[-1] not in self.content:
            return context
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Implicit dimension choice")
            return context + multiplier * self._load(context.shape[-1], side)(context)


def stacked(
    networks: Sequence[tuple[Mapping[Any, Any], float]],
    context: torch.Tensor,
    side: int,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Networks applied one after the other, in the reference's precision throughout."""
    for content, multiplier in networks:
        context = Reference(content, dtype)(context, side, multiplier)
    return context.to(dtype)


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest error as a share of the largest expected number; infinite where either holds a
    NaN.
    """
    result, expected = result.detach().cpu().double(), expected.detach().cpu().double()
    error = (result - expected).abs().max()
    share = float(error / expected.abs().max().clamp(min=1e-30))
    return share if share == share else float("inf")


def as_stored(content: Content) -> Content:
    """A copy to disguise as some variant, tensors shared."""
    return {key: copy.copy(value) for key, value in content.items()}


@st.composite
def recipes(
    draw: st.DrawFn,
    *,
    widths: Sequence[int] = (4, 6, 8, 11, 16),
    activations: Sequence[str | None] = (None, "linear", *ACTIVATIONS),
    dtypes: Sequence[torch.dtype] = (torch.float32,),
) -> Recipe:
    """Any network that AUTOMATIC1111 could have saved, small."""
    hidden = draw(st.lists(st.sampled_from([0.5, 1, 1.3, 1.5, 2, 3]), max_size=3))
    probabilities = draw(st.tuples(*(st.sampled_from([0.0, 0.0, 0.05, 0.3]) for _ in hidden)))
    return Recipe(
        widths=tuple(draw(st.lists(st.sampled_from(widths), min_size=1, max_size=2, unique=True))),
        layer_structure=(1, *hidden, 1),
        activation=draw(st.sampled_from(activations)),
        activate_output=draw(st.booleans()),
        layer_norm=draw(st.booleans()),
        dropout=(0.0, *probabilities, 0.0),
        dtype=draw(st.sampled_from(dtypes)),
        seed=draw(st.integers(0, 10**6)),
    )
