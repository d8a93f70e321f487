"""Gains that are learned with a network: how strongly it acts at which attention modules.

All attention modules of a width share the network's MLPs. A gain multiplies what they add: per
width, which is the same as a scale of the last layer; per block, as ``lbw`` in a tag; or for each
projection by itself. No file format of hypernetworks has a place for the last two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hypernetworks.engine.network import Hypernetwork
from hypernetworks.patching.sites import Site, find_sites
from hypernetworks.training.gains import GRADIENT, RATE


class Gains:
    """One factor for what a network adds, per group of projections; 1 until they have learned.

    Args:
        unet: with networks or without.
        shared_by: which projections have one gain together: those of a ``"width"`` (keys and values
            apart), of a ``"block"``, or none (``"projection"``).

    Attributes:
        parameter: fp32, one number per group, 0 for a gain of 1.
    """

    def __init__(self, unet: nn.Module, shared_by: str) -> None:
        self._projections, groups = list[tuple[nn.Module, int]](), dict[object, int]()
        for site in find_sites(unet):
            for side, module in enumerate((site.to_k, site.to_v)):
                group = groups.setdefault(_group(site, side, shared_by), len(groups))
                self._projections.append((module, group))

        self.parameter = nn.Parameter(torch.zeros(len(groups)))
        self.parameter.register_hook(lambda gradient: gradient * GRADIENT)

    @property
    def values(self) -> torch.Tensor:
        """The gains, fp32 ``(groups,)``."""
        return 1 + RATE * self.parameter

    @contextmanager
    def acting(self) -> Iterator[None]:
        """The projections are computed with their gains. The networks must be applied."""
        hooks = [m.register_forward_hook(self._hook(group)) for m, group in self._projections]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, group: int) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], Any]:
        def run(module: nn.Module, arguments: tuple[Any, ...], changed: torch.Tensor) -> Any:
            # The projection is linear, so a gain of its result is one of what it is given.
            plain = F.linear(arguments[0], module.weight, module.bias)  # type: ignore[arg-type]
            return plain + self.values[group] * (changed - plain)

        return run


def _group(site: Site, side: int, shared_by: str) -> object:
    if shared_by == "block":
        return site.block
    return (site.width if shared_by == "width" else site.path), side


class Gained(Hypernetwork):
    """A network whose parameters include gains."""

    gains: Gains

    @classmethod
    def of(cls, network: Hypernetwork, gains: Gains) -> Gained:
        """The same network, which shares its weights, with these gains."""
        made = cls(network.name, network.structure, network.pairs, network.provenance)
        made.gains = gains
        return made

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of the network, then the gains."""
        yield from super().parameters()
        yield self.gains.parameter
