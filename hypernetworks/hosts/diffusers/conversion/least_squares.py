"""The affine map that is nearest to networks, on the contexts that each attention module gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from ....conversion import Base, Weighted
from ....conversion.layers import Layer
from ....conversion.lora import narrowed
from ....conversion.lora_files import Narrow, Part
from ....conversion.low_rank import Factors, Rank
from ....conversion.weighted import CPU
from ....engine.multiplier import Multiplier, Schedule
from ....engine.stack import KEY, VALUE, Stack
from ....patching import apply

ROWS = 512
"""Contexts that an attention module notes of each call; the rest is left out."""
RIDGE = 1e-5
"""Of the mean square of the contexts: keeps directions that hardly occur from getting large
weights."""


class Sums:
    """What least squares needs of contexts ``x`` and of what networks add to them."""

    def __init__(self, width: int) -> None:
        self.gram = torch.zeros(width + 1, width + 1, dtype=torch.float64)
        self.products = torch.zeros(2, width + 1, width, dtype=torch.float64)

    def add(self, contexts: torch.Tensor, changes: Sequence[torch.Tensor]) -> None:
        """Rows ``(count, width)``; the changes of keys and of values."""
        rows = torch.cat([contexts, torch.ones(len(contexts), 1)], 1).double()
        self.gram += rows.T @ rows
        for side, change in enumerate(changes):
            self.products[side] += rows.T @ change.double()

    def solved(self, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A and b of the best affine map, in fp32."""
        width = len(self.gram) - 1
        ridge = RIDGE * self.gram.diagonal()[:-1].mean() * torch.eye(width + 1).double()
        # the shift is no direction of the contexts
        ridge[-1, -1] = 0
        found = torch.linalg.solve(self.gram + ridge, self.products[side])
        return found[:-1].T.float(), found[-1].float()

    def solved_without_shift(self, side: int) -> torch.Tensor:
        """A of the best linear map, in fp32."""
        gram = self.gram[:-1, :-1]
        ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).double()
        found: torch.Tensor = torch.linalg.solve(gram + ridge, self.products[side, :-1])
        return found.T.float()

    def metric(self, *, around_mean: bool = True) -> torch.Tensor:
        """L with ``L L^T`` the contexts' covariance: what errors of A are weighed by.

        Args:
            around_mean: ``False`` where no shift takes care of the contexts' mean.
        """
        count = self.gram[-1, -1]
        covariance = self.gram[:-1, :-1] / count
        if around_mean:
            mean = self.gram[:-1, -1] / count
            covariance = covariance - torch.outer(mean, mean)
        floor = RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance)).double()
        found: torch.Tensor = torch.linalg.cholesky(covariance + floor)
        return found.float()


def noted(
    unet: nn.Module,
    base: Base,
    networks: Sequence[Weighted],
    multipliers: Sequence[float],
    generate: Callable[[], object],
) -> dict[str, Sums]:
    """Sums over the contexts of every attention module that the networks change, by its path.

    Args:
        multipliers: factors on the networks' own, one run of ``generate`` for each.
    """
    sums: dict[str, Sums] = {}
    blocks = list(dict.fromkeys(layer.block for layer in base.layers))
    factors = [weighted.multiplier.block_factors(blocks) for weighted in networks]
    stack, hooks = Stack([weighted.network for weighted in networks]), []
    for layer in base.layers:
        strengths = [w.at(layer, f) for w, f in zip(networks, factors, strict=True)]
        # such as blocks with a factor of 0
        if not any(any(pair) for pair in strengths):
            continue
        sums[layer.path] = Sums(layer.width)
        note = partial(_note, sums[layer.path], stack, strengths)
        hooks.append(
            unet.get_submodule(layer.path).register_forward_pre_hook(note, with_kwargs=True)
        )

    try:
        for factor in multipliers:
            with apply(unet, scaled(networks, factor)):
                generate()
    finally:
        for hook in hooks:
            hook.remove()
    return sums


def scaled(networks: Sequence[Weighted], factor: float) -> list[tuple[Any, Multiplier]]:
    """The networks for :func:`~hypernetworks.apply`, with a factor on their multipliers."""
    found = []
    for weighted in networks:
        own = weighted.multiplier
        strength = Schedule.constant(own.at(0, 1) * factor)
        found.append((weighted.network, replace(own, strength=strength, hires=None)))
    return found


def _note(
    sums: Sums,
    stack: Stack,
    strengths: Sequence[tuple[float, float]],
    module: nn.Module,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    """Add the context of one call, and what the networks make of it."""
    # processors are called with positions or names; self-attention has no second argument
    context = options.get("encoder_hidden_states")
    if context is None and len(arguments) > 1:
        context = arguments[1]
    if context is None:
        context = arguments[0] if arguments else options["hidden_states"]

    rows = context.detach().flatten(0, -2).float()
    # neighbours in an image are alike: every n-th says nearly as much
    rows = rows[:: max(1, len(rows) // ROWS)]

    changes = [
        stack.transform(rows, side, [pair[side] for pair in strengths]) - rows
        for side in (KEY, VALUE)
    ]
    sums.add(rows.to(CPU), [change.to(CPU) for change in changes])


def part_of(base: Base, layer: Layer, sums: Sums, rank: Rank, *, shift: bool = True) -> Part:
    """The LoRA of one attention module.

    Args:
        shift: ``False`` for one without biases.
    """
    value_weight = base.tensor(layer.value).float()
    metric = None if rank.is_full else sums.metric(around_mean=shift)

    if not shift:
        key, value = sums.solved_without_shift(KEY), sums.solved_without_shift(VALUE)
        bias = value_bias = None
    else:
        key, _ = sums.solved(KEY)
        value, moved = sums.solved(VALUE)
        value_bias = value_weight @ moved
        bias = base.tensor(layer.out).float() @ value_bias

    return Part(
        layer,
        _weighed(base.tensor(layer.key).float() @ key, rank, metric),
        _weighed(value_weight @ value, rank, metric),
        bias,
        value_bias,
    )


def _weighed(
    matrix: torch.Tensor, rank: Rank, metric: torch.Tensor | None
) -> torch.Tensor | Factors:
    """At a rank, with the smallest error on the contexts rather than on the numbers of the
    matrix."""
    if metric is None:
        return matrix
    found = narrowed(matrix @ metric, rank, min(matrix.shape))
    if not isinstance(found, Factors):
        return matrix
    # back from the weighed matrix to the one that acts on contexts
    down = torch.linalg.solve_triangular(metric, found.down, upper=False, left=False)
    return Factors(found.up, down, found.error)


@contextmanager
def added(unet: nn.Module, changes: Iterable[tuple[str, torch.Tensor]]) -> Iterator[None]:
    """The UNet's parameters with something added, inside; the old ones come back.

    Args:
        changes: names of parameters, and what is added to each.
    """
    before: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        for name, change in changes:
            tensor: torch.Tensor = unet.get_parameter(name)
            before.append((tensor, tensor.detach().clone()))

            with torch.no_grad():
                tensor.add_(change.to(tensor.device, tensor.dtype).view_as(tensor))
        yield

    finally:
        with torch.no_grad():
            for tensor, old in before:
                tensor.copy_(old)


def changes_of(
    lora: Iterable[Part | Narrow], dtype: torch.dtype, weight: float = 1.0
) -> Iterator[tuple[str, torch.Tensor]]:
    """What a LoRA adds to parameters of the UNet, as rounded in a file.

    Args:
        weight: of the LoRA.
    """
    for part in lora:
        if isinstance(part, Narrow):
            yield f"{part.path}.weight", weight * _product(part.up, part.down, dtype)
            continue

        path = part.layer.path
        for name, change in ((f"{path}.to_k", part.key), (f"{path}.to_v", part.value)):
            if isinstance(change, Factors):
                yield f"{name}.weight", weight * _product(change.up, change.down, dtype)
            elif change is not None:
                yield f"{name}.weight", weight * change.to(dtype).float()

        if part.bias is not None:
            yield f"{path}.to_out.0.bias", weight * part.bias.to(dtype).float()


def _product(up: torch.Tensor, down: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return up.to(dtype).float() @ down.to(dtype).float()
