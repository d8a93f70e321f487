"""New networks to train: AUTOMATIC1111's initialisations, optionally as the identity at step 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from ..errors import StructureError
from .network import Hypernetwork
from .structure import Structure, build_activation

INITIALISATIONS = ("Normal", "XavierUniform", "XavierNormal", "KaimingUniform", "KaimingNormal")
"""Distributions of the linear layers' weights, by AUTOMATIC1111's names; biases are 0."""


def create_network(
    name: str,
    structure: Structure,
    widths: Iterable[int],
    *,
    initialisation: str = "Normal",
    zero_last: bool = True,
    seed: int = 0,
) -> Hypernetwork:
    """A new fp32 network, ready for use or training; torch's random state is left unchanged.

    The gains of layer norms are drawn from N(0, 0.01), whatever the initialisation. This is a quirk
    of AUTOMATIC1111 that keeps the first outputs small.

    Args:
        widths: context widths; each gets an MLP for keys and one for values.
        initialisation: one of :data:`INITIALISATIONS`.
        zero_last: whether the last layer (or its layer norm) starts at 0, so that the network is
            the identity until it has learned something.
        seed: of the weights.

    Raises:
        StructureError: an unknown initialisation, no width, or an activation after the last layer
            with which a zero layer is no identity or has no gradient.
    """
    wanted = sorted(set(widths))
    if not wanted or wanted[0] < 1:
        raise StructureError(f"the widths {wanted} can't be used: name at least one, such as 768")
    if any(min(structure.widths(dim)) < 1 for dim in wanted):
        raise StructureError(
            f"the layer structure {list(structure.layer_structure)} leaves nothing of width "
            f"{wanted[0]}"
        )
    if initialisation not in INITIALISATIONS:
        raise StructureError(
            f'the initialisation "{initialisation}" is unknown, use one of '
            f"{', '.join(INITIALISATIONS)}"
        )
    if zero_last and not can_begin_at_zero(structure):
        raise StructureError(
            f'with "{structure.activation}" after the last layer a zero last layer can\'t learn '
            "or is no identity: "
            "leave out one of the two"
        )

    # The caller's generator is untouched, so a new network doesn't change the next image.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Hypernetwork.create(name, structure, wanted)
        for pair in network.pairs.values():
            for mlp in pair:
                _initialise(
                    list(mlp.linear), _drawer(initialisation, structure.activation), zero_last
                )

    network.provenance = replace(
        network.provenance, name=name, weight_initialization=initialisation
    )

    return network


def can_begin_at_zero(structure: Structure) -> bool:
    """Whether a zero last layer gives the identity and can learn.

    Before a sigmoid, for instance, it isn't the identity; before a ReLU, it has no gradient.
    """
    if structure.layer_norm or structure.activation == "linear" or not structure.activate_output:
        return True
    # Tested instead of listed: torch has some thirty activations, and each version adds more.
    point = torch.zeros(1, 1, 4, requires_grad=True)
    value = build_activation(structure.activation).eval()(point)
    slope = torch.autograd.grad(value.sum(), point)[0]
    return bool((value == 0).all() and (slope != 0).all())


def parameter_count(structure: Structure, widths: Iterable[int]) -> int:
    """The number of a network's parameters; each takes 4 bytes in a file."""
    total = 0
    # On the meta device, no memory is allocated for them.
    for dim in set(widths):
        with torch.device("meta"):
            total += 2 * sum(
                p.numel() for module in structure.modules(dim) for p in module.parameters()
            )
    return total


def _drawer(initialisation: str, activation: str) -> Callable[[torch.Tensor], object]:
    nonlinearity: Literal["leaky_relu", "relu"] = (
        "leaky_relu" if activation == "leakyrelu" else "relu"
    )
    return {
        "Normal": lambda weight: nn.init.normal_(weight, std=0.01),
        "XavierUniform": nn.init.xavier_uniform_,
        "XavierNormal": nn.init.xavier_normal_,
        "KaimingUniform": lambda weight: nn.init.kaiming_uniform_(
            weight, nonlinearity=nonlinearity
        ),
        "KaimingNormal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity=nonlinearity),
    }[initialisation]


def _initialise(
    modules: list[nn.Module], draw: Callable[[torch.Tensor], object], zero_last: bool
) -> None:
    layers = [m for m in modules if isinstance(m, (nn.Linear, nn.LayerNorm))]
    for layer in layers:
        if isinstance(layer, nn.LayerNorm):
            nn.init.normal_(layer.weight, std=0.01)
        else:
            draw(layer.weight)
        nn.init.zeros_(layer.bias)
    # The last of them may be a layer norm. It would scale up zeros, so then its gain is zeroed.
    if zero_last:
        nn.init.zeros_(layers[-1].weight)
