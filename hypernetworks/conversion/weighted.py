"""Networks at fixed multipliers, and the change of weights that linear ones are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ..devices import enough_memory as enough_memory
from ..engine.affine import AffineMap, chain
from ..engine.multiplier import Multiplier
from ..engine.network import Hypernetwork
from ..engine.products import linear
from ..engine.stack import KEY, VALUE
from ..errors import MultiplierError, StructureError
from .base import Base
from .layers import Layer

CPU = torch.device("cpu")
OnProgress = Callable[[int, int], object]
"""Called with (done, total)."""


@dataclass(frozen=True)
class Weighted:
    """A network and how strong it is, at all steps.

    Raises:
        MultiplierError: the multiplier is a schedule.
    """

    network: Hypernetwork
    multiplier: Multiplier = field(default_factory=Multiplier)

    def __post_init__(self) -> None:
        if not self.multiplier.is_constant:
            raise MultiplierError(
                f'"{self.multiplier}" changes during sampling, which fixed weights can\'t: write '
                "one number, such as "
                "0.7"
            )

    def at(self, layer: Layer, factors: dict[str, float]) -> tuple[float, float]:
        """Multipliers for keys and for values at one attention module.

        Args:
            factors: by block, see :meth:`Multiplier.block_factors`.
        """
        own = self.multiplier
        if layer.width not in self.network.pairs or own.attention not in ("both", layer.kind):
            return 0.0, 0.0
        # a constant is the same at every step
        strength = own.at(0, 1) * factors.get(layer.block, 1.0)
        return strength * own.key, strength * own.value


@dataclass(frozen=True)
class Change:
    """What networks add to one attention module's weights, in fp32.

    Attributes:
        layer: where.
        key, value: added to the weights ``(inner, width)``; ``None`` for nothing.
        bias: added to the bias of ``to_out``, ``(outer,)``; ``None`` for nothing.
    """

    layer: Layer
    key: torch.Tensor | None
    value: torch.Tensor | None
    bias: torch.Tensor | None


class LinearChanges:
    """The changes of weights that linear networks at fixed multipliers are, exactly.

    Args:
        base: the model.
        networks: in the order of application.

    Raises:
        StructureError: a network that isn't linear.
        NoMatchingWidthError: a network for another model.
        TagError: block factors that don't fit the model.
    """

    def __init__(self, base: Base, networks: Sequence[Weighted]) -> None:
        check_linear(networks)
        base.check_fit([weighted.network for weighted in networks])
        self.base, self.networks = base, tuple(networks)
        blocks = list(dict.fromkeys(layer.block for layer in base.layers))
        self._factors = [weighted.multiplier.block_factors(blocks) for weighted in networks]
        self._maps: dict[tuple[int, int, tuple[float, ...]], AffineMap] = {}

    def affine(self, layer: Layer, side: int) -> AffineMap | None:
        """What is added to the context of one projection: one map for all networks; ``None`` for
        nothing."""
        multipliers = tuple(
            weighted.at(layer, factors)[side]
            for weighted, factors in zip(self.networks, self._factors, strict=True)
        )
        if not any(multipliers):
            return None

        # layers of one width share a map, unless blocks have factors of their own
        key = layer.width, side, multipliers
        if key not in self._maps:
            maps = [
                (weighted.network.affine(layer.width, side, CPU, torch.float32), multiplier)
                for weighted, multiplier in zip(self.networks, multipliers, strict=True)
                if multiplier
            ]
            self._maps[key] = chain(maps)
        return self._maps[key]

    def at(self, layer: Layer) -> Change:
        """The change at one attention module, computed now."""
        value = self.affine(layer, VALUE)
        bias = None if value is None else self.bias_at(layer, value)
        return Change(layer, self.product(layer, KEY), self.product(layer, VALUE), bias)

    def product(self, layer: Layer, side: int) -> torch.Tensor | None:
        """``W A``, what is added to one projection's weight ``(inner, width)``; ``None`` for
        nothing."""
        affine = self.affine(layer, side)
        if affine is None:
            return None

        weight = self.base.tensor(layer.key if side == KEY else layer.value).float()
        with torch.no_grad():
            return linear(weight, affine.weight.T.contiguous(), None)

    def rank(self, layer: Layer) -> int:
        """The largest rank that the change can have, as the narrowest layer of each network
        allows."""
        narrowest = (
            min(weighted.network.structure.widths(layer.width))
            for weighted in self.networks
            if layer.width in weighted.network.pairs
        )
        return min(layer.width, sum(narrowest))

    def bias_at(self, layer: Layer, affine: AffineMap) -> torch.Tensor | None:
        """``W_out W_v b``, ``(outer,)``; ``None`` where b is 0."""
        if not affine.bias.any():
            return None
        # two vectors instead of a product of matrices
        inner = self.base.tensor(layer.value).float() @ affine.bias
        return self.base.tensor(layer.out).float() @ inner

    def release(self) -> None:
        """Forget what was made ready from the networks."""
        self._maps.clear()
        for weighted in self.networks:
            weighted.network.release()


def check_linear(networks: Sequence[Weighted]) -> None:
    """Raise where a network isn't linear.

    Raises:
        StructureError: which; and what can be done.
    """
    if not networks:
        raise StructureError("no network is named: name at least one")
    for weighted in networks:
        structure = weighted.network.structure
        if not structure.is_linear:
            what = "a layer norm" if structure.activation == "linear" else structure.activation

            raise StructureError(
                f'"{weighted.network.name}" is not linear (it has {what}), so no change of weights '
                "does the same: make a LoRA that comes close, with `python -m hypernetworks "
                "convert FILE LORA.safetensors --to lora --base CHECKPOINT`"
            )
