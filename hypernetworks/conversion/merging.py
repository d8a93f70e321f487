"""Several networks as one, and networks with fewer hidden units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..engine.affine import chain
from ..engine.network import Hypernetwork, Mlp, Provenance
from ..engine.stack import KEY, VALUE
from ..engine.structure import StateDict, Structure
from ..errors import StructureError
from .low_rank import Rank, factorised
from .weighted import CPU, Weighted, enough_memory

TOKENS = 512
"""Contexts that a difference is measured on."""


@dataclass(frozen=True)
class Made:
    """A new network, and how far it is from what it was made of.

    Attributes:
        network: in fp32.
        error: the difference, as a share of what the networks change.
        exact: whether that is rounding alone.
    """

    network: Hypernetwork
    error: float
    exact: bool

    @property
    def verdict(self) -> str:
        """How a merged network compares with its parts, for the user."""
        how = "the same as" if self.exact else f"{self.error:.1%} away from"
        return f"{how} applying the networks in this order"

    @property
    def left_out(self) -> str:
        """What a smaller network lacks, for the user."""
        return f"{self.error:.1%} of the effect is left out"


def merge(name: str, networks: Sequence[Weighted]) -> Made:
    """One network for several at fixed multipliers; at multiplier 1 it does what they do.

    Linear networks become one linear network that is the same as applying them in order. Others are
    joined side by side, which adds what each does alone; applied in order, each sees what the ones
    before it changed. The difference is measured on random contexts.

    Args:
        name: of the new network.
        networks: in the order of application.

    Raises:
        StructureError: they can't be joined.
    """
    if not networks:
        raise StructureError("no network is named: name at least one")

    for weighted in networks:
        if weighted.multiplier.attention != "both" or weighted.multiplier.blocks is not None:
            raise StructureError(
                f'"{weighted.multiplier}" differs from layer to layer, which a hypernetwork '
                "can't: leave out attn= "
                "and lbw=, or write a LoRA (convert --to lora)"
            )

    widths = sorted({width for weighted in networks for width in weighted.network.pairs})
    with enough_memory("to merge the networks: close other programs"), torch.no_grad():
        # affine maps one after the other are an affine map; other networks only add up
        if all(weighted.network.structure.is_linear for weighted in networks):
            network = _merged_linear(name, networks, widths)
        else:
            network = _joined(name, networks, widths)
        error = difference(networks, [Weighted(network)])
    return Made(network, error, error < 1e-4)


def resize(network: Hypernetwork, multiple: float) -> Made:
    """A linear network with fewer hidden units: the best of that rank.

    Args:
        multiple: hidden units, in multiples of the context width, such as 0.1.

    Raises:
        StructureError: the network isn't linear, or the number is no such multiple.
    """
    if not network.structure.is_linear:
        raise StructureError(
            f'"{network.name}" is not linear (it has {network.structure.activation}), and only '
            "linear networks can be resized: train a smaller one"
        )

    # two linear layers in a row hold every map of that rank
    structure = Structure((1, multiple, 1))
    with enough_memory("to resize the network: close other programs"), torch.no_grad():
        tensors = {
            width: (
                _narrow(network, width, KEY, structure),
                _narrow(network, width, VALUE, structure),
            )
            for width in network.widths
        }
        made = Hypernetwork.from_tensors(network.name, structure, tensors, network.provenance)
        network.release()

        error = difference([Weighted(network)], [Weighted(made)])
    return Made(made, error, error < 1e-4)


def difference(right: Sequence[Weighted], made: Sequence[Weighted]) -> float:
    """How far networks are from others, as a share of what the others change, on random contexts
    of all widths."""
    wrong = total = 0.0
    generator = torch.Generator().manual_seed(0)
    for width in sorted({width for weighted in right for width in weighted.network.pairs}):
        context = torch.randn(TOKENS, width, generator=generator)
        for side in (KEY, VALUE):
            wanted, found = (_through(ws, context, side) for ws in (right, made))
            wrong += float((found - wanted).double().square().sum())
            total += float((wanted - context).double().square().sum())
    return (wrong / total) ** 0.5 if total else 0.0


def _through(networks: Sequence[Weighted], context: torch.Tensor, side: int) -> torch.Tensor:
    for weighted in networks:
        strength = _strength(weighted, side)
        if strength and context.shape[-1] in weighted.network.pairs:
            context = weighted.network.step(context, side, strength)
    return context


def _strength(weighted: Weighted, side: int) -> float:
    own = weighted.multiplier
    return own.at(0, 1) * (own.key if side == KEY else own.value)


def _merged_linear(name: str, networks: Sequence[Weighted], widths: Sequence[int]) -> Hypernetwork:
    """One linear layer per side, which holds any affine map."""
    tensors: dict[int, tuple[StateDict, StateDict]] = {}
    for width in widths:
        sides: list[StateDict] = []
        for side in (KEY, VALUE):
            maps = [
                (w.network.affine(width, side, CPU, torch.float64), _strength(w, side))
                for w in networks
                if width in w.network.pairs
            ]
            affine = chain(maps).to(CPU, torch.float32)
            sides.append({"linear.0.weight": affine.weight, "linear.0.bias": affine.bias})
        tensors[width] = sides[0], sides[1]

    for weighted in networks:
        weighted.network.release()
    structure = Structure((1, 1), dropout=(0, 0))
    return Hypernetwork.from_tensors(name, structure, tensors, Provenance(name=name))


def _joined(name: str, networks: Sequence[Weighted], widths: Sequence[int]) -> Hypernetwork:
    """Hidden layers side by side: the outputs are added."""
    structures = [weighted.network.structure for weighted in networks]
    first = structures[0]

    for weighted, structure in zip(networks, structures, strict=True):
        built_alike = (
            structure.activation == first.activation
            and len(structure.layer_structure) == len(first.layer_structure) > 2
            and not structure.layer_norm
            and not (structure.activate_output and structure.activation != "linear")
            and weighted.network.widths == tuple(widths)
        )
        if not built_alike or structure.activation in _ACROSS:
            raise StructureError(
                f"{weighted.network.name} and {networks[0].network.name} can't be joined: both "
                "need the same activation, number of layers and widths, at least one hidden "
                "layer, no layer norm, and no activation after the last layer"
            )

    hidden = zip(*(structure.layer_structure[1:-1] for structure in structures), strict=True)
    layers = (1.0, *(sum(multiples) for multiples in hidden), 1.0)
    tensors: dict[int, tuple[StateDict, StateDict]] = {}
    for width in widths:
        sides = [
            _side_by_side([(w.network.pairs[width][side], _strength(w, side)) for w in networks])
            for side in (KEY, VALUE)
        ]
        tensors[width] = sides[0], sides[1]

    structure = Structure(
        layers, first.activation, activate_output=False, dropout=(0,) * len(layers)
    )
    return Hypernetwork.from_tensors(name, structure, tensors, Provenance(name=name))


_ACROSS = ("prelu", "softmax", "softmin", "logsoftmax", "softmax2d")
"""Activations that have weights of their own, or look at other numbers than their own."""


def _side_by_side(mlps: Sequence[tuple[Mlp, float]]) -> StateDict:
    """Block-diagonal hidden layers; the multipliers go into the last one."""
    chains = [[m for m in mlp.linear if isinstance(m, nn.Linear)] for mlp, _ in mlps]
    last = len(chains[0]) - 1
    found: dict[str, torch.Tensor] = {}
    for place in range(last + 1):
        weights = [linears[place].weight.detach().float() for linears in chains]
        biases = [linears[place].bias.detach().float() for linears in chains]

        if place == last:
            weights = [w * m for w, (_, m) in zip(weights, mlps, strict=True)]
            biases = [b * m for b, (_, m) in zip(biases, mlps, strict=True)]
            weight, bias = torch.cat(weights, 1), torch.stack(biases).sum(0)
        else:
            weight = torch.cat(weights) if place == 0 else _diagonal(weights)
            bias = torch.cat(biases)

        number = 2 * place  # an activation stands between two layers
        found[f"linear.{number}.weight"], found[f"linear.{number}.bias"] = weight, bias
    return found


def _diagonal(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """The matrices along the diagonal of one."""
    made: torch.Tensor = torch.block_diag(*weights)  # type: ignore[no-untyped-call]
    return made


def _narrow(network: Hypernetwork, width: int, side: int, structure: Structure) -> StateDict:
    """Two layers whose product is the nearest to the network's own map; the bias is kept whole."""
    affine = network.affine(width, side, CPU, torch.float32)
    hidden = structure.widths(width)[1]
    if hidden < 1:
        raise StructureError(
            f"{hidden} hidden units for width {width} are too few: use a larger number"
        )

    # A map of lower rank than there are units leaves the others at zero.
    factors = factorised(affine.weight, Rank(hidden))
    up, down = torch.zeros(width, hidden), torch.zeros(hidden, width)
    up[:, : factors.rank], down[: factors.rank] = factors.up, factors.down

    return {
        "linear.0.weight": down,
        "linear.0.bias": torch.zeros(hidden),
        "linear.1.weight": up,
        "linear.1.bias": affine.bias.clone(),
    }
