"""Networks with their multipliers at every attention module of one UNet, at the current step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ..engine.hidden import ends_in_layer
from ..engine.multiplier import Multiplier, Schedule
from ..engine.network import Hypernetwork
from ..engine.stack import KEY, Stack
from .sites import Site

Networks: TypeAlias = Sequence[tuple[Hypernetwork, "float | str | Schedule | Multiplier"]]
"""``(network, multiplier)`` in the order of application."""


class SiteMultipliers:
    """One stack of networks, and how strong each is where and when.

    Args:
        networks: in the order of application.
        sites: the attention modules that it will act on.

    Attributes:
        steps: of the pass; ``None`` until :meth:`at` has told it.

    Raises:
        MultiplierError: a multiplier that can't be understood.
        TagError: block factors that don't fit these sites.
    """

    def __init__(self, networks: Networks, sites: Sequence[Site]) -> None:
        self.stack = Stack([network for network, _ in networks])
        self._networks = tuple(networks)
        self._step: tuple[int, int, bool] = (0, 1, False)
        self._multipliers = tuple(Multiplier.of(multiplier) for _, multiplier in networks)
        self._sites = tuple(sites)
        names = list(dict.fromkeys(site.block for site in sites if site.block is not None))
        self._factors = [multiplier.block_factors(names) for multiplier in self._multipliers]
        self._current: list[tuple[tuple[float, ...], tuple[float, ...]]] = []
        self.at(0, 1)
        self.steps: int | None = None

    def on(self, sites: Sequence[Site]) -> SiteMultipliers:
        """The same networks, at the same step, on other attention modules.

        Raises as the class does.
        """
        moved = SiteMultipliers(self._networks, sites)
        step, total, hires = self._step
        moved.at(step, total, hires=hires)
        moved.steps = self.steps
        return moved

    def treats_alike(self, one: Site, other: Site) -> bool:
        """Whether two attention modules have the same multipliers at every step."""
        ones = [1.0] * len(self._multipliers)
        return self._site_multipliers(one, ones) == self._site_multipliers(other, ones)

    @property
    def is_zero(self) -> bool:
        """Whether none of its networks can ever have an effect."""
        return all(multiplier.is_zero for multiplier in self._multipliers)

    @property
    def ends_linear(self) -> bool:
        """Whether the last network that ever has an effect is linear, so that it can be folded into
        what follows.
        """
        last = self._last
        return last is not None and last.structure.is_linear

    @property
    def ends_in_layer(self) -> bool:
        """Whether the last network that ever has an effect is not linear, but its last layer is."""
        last = self._last
        return last is not None and ends_in_layer(last.structure)

    @property
    def _last(self) -> Hypernetwork | None:
        pairs = zip(self.stack.networks, self._multipliers, strict=True)
        return next((n for n, m in [*pairs][::-1] if not m.is_zero), None)

    @property
    def is_constant(self) -> bool:
        """Whether every step has the same multipliers."""
        return all(multiplier.is_constant for multiplier in self._multipliers)

    def at(self, step: int, total: int, *, hires: bool = False) -> None:
        """Say which step comes next; see :meth:`Handle.at`."""
        self._step, self.steps = (step, total, hires), total
        strengths = [m.at(step, total, hires=hires) for m in self._multipliers]
        self._current = [self._site_multipliers(site, strengths) for site in self._sites]

    def multipliers(self, site: int, side: int) -> tuple[float, ...]:
        """Multipliers of all its networks at one attention module, by the module's number, for keys
        or values.
        """
        keys, values = self._current[site]
        return keys if side == KEY else values

    def _site_multipliers(
        self, site: Site, strengths: Sequence[float]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Multipliers of all networks at one attention module: (for keys, for values)."""
        shared = [
            0.0
            if multiplier.attention != "both" and multiplier.attention != site.kind
            else strength * (factors.get(site.block, 1.0) if site.block is not None else 1.0)
            for multiplier, strength, factors in zip(
                self._multipliers, strengths, self._factors, strict=True
            )
        ]

        return (
            tuple(s * m.key for s, m in zip(shared, self._multipliers, strict=True)),
            tuple(s * m.value for s, m in zip(shared, self._multipliers, strict=True)),
        )

    def __str__(self) -> str:
        return ", ".join(
            f"{n.name} {m}" for n, m in zip(self.stack.networks, self._multipliers, strict=True)
        )
