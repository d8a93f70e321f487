"""An ordered stack of networks, applied one after the other to a context."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .affine import AffineMap, chain
from .network import Hypernetwork, autocast_dtype, without_autocast
from .products import FUSING
from .tensors import is_on_cpu, is_ordinary
from .tracing import is_compiling

KEY, VALUE = 0, 1
"""The two sides of a pair."""
LARGEST_HALF = 30_000.0
"""Networks whose numbers stay below this may be computed in fp16, which ends at 65,504."""


class Stack:
    """Networks in the order of their tags; a network may occur several times.

    The arithmetic of every network is ``x + multiplier * mlp(x)``; the result is cast back to the
    context's dtype once, at the end.
    """

    def __init__(self, networks: Sequence[Hypernetwork]) -> None:
        self.networks = tuple(networks)

    @property
    def widths(self) -> tuple[int, ...]:
        """Context widths that any of the networks transforms, ascending."""
        return tuple(sorted({dim for network in self.networks for dim in network.widths}))

    def active(self, dim: int, multipliers: Sequence[float]) -> list[tuple[Hypernetwork, float]]:
        """The networks that change a context of this width, with their multipliers."""
        return [
            (n, m) for n, m in zip(self.networks, multipliers, strict=True) if m and dim in n.pairs
        ]

    def transform(
        self, context: torch.Tensor, side: int, multipliers: Sequence[float], *, exact: bool = True
    ) -> torch.Tensor:
        """The context for one side; the same object if no network changes it.

        Args:
            context: ``(batch, tokens, dim)``; not changed.
            side: :data:`KEY` or :data:`VALUE`.
            multipliers: one per network, 0 to leave it out.
            exact: compute in fp32 at least, as AUTOMATIC1111 does; otherwise in the context's own
                dtype, if the device is made for it and the numbers fit.
        """
        return self.through(self.active(context.shape[-1], multipliers), context, side, exact=exact)

    def transform_both(
        self, context: torch.Tensor, multipliers: Sequence[float]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The context for keys and for values, in fp32 at least, as one computation; ``None``
        where that isn't possible, or isn't faster: then :meth:`transform` gives each.

        Args:
            context: as for :meth:`transform`.
            multipliers: the same on both sides.
        """
        active = self.active(context.shape[-1], multipliers)
        is_plain = context.ndim == 3 and is_ordinary(context) and context.device.type in FUSING
        if len(active) != 1 or not is_plain or torch.is_grad_enabled() or is_compiling():
            return None

        network, multiplier = active[0]
        dtype = torch.promote_types(context.dtype, torch.float32)
        with without_autocast(context.device.type):
            both = network.both_sides(context.shape[-1], context.device, dtype)
            return None if both is None else both.of(context, multiplier)

    @staticmethod
    def through(
        active: Sequence[tuple[Hypernetwork, float]],
        context: torch.Tensor,
        side: int,
        *,
        exact: bool = True,
    ) -> torch.Tensor:
        """As :meth:`transform`, for networks that :meth:`active` has chosen."""
        if not active:
            return context

        # Cast back once, at the end: between two networks, rounding to fp16 would add up.
        half = None if exact else half_for(active, context, side)
        dtype = half or torch.promote_types(context.dtype, torch.float32)
        with without_autocast(context.device.type):
            result = context.to(dtype)
            for network, multiplier in active:
                result = network.step(result, side, multiplier)
            return result.to(context.dtype)


def split_tail(
    active: Sequence[tuple[Hypernetwork, float]],
) -> tuple[list[tuple[Hypernetwork, float]], list[tuple[Hypernetwork, float]]]:
    """Split into the networks that must be computed and the linear ones at the end.

    Only the networks at the end can be folded into the projection: they act on its input last.
    """
    tail = len(active)
    while tail and active[tail - 1][0].structure.is_linear and not active[tail - 1][0].training:
        tail -= 1
    return list(active[:tail]), list(active[tail:])


def as_one_map(
    tail: Sequence[tuple[Hypernetwork, float]],
    dim: int,
    side: int,
    device: torch.device,
    dtype: torch.dtype,
) -> AffineMap:
    """Linear networks as one map.

    Returns:
        For one network its map at multiplier 1, so that another multiplier needs no new map; for
        several, a map that includes their multipliers.
    """
    maps = [(network.affine(dim, side, device, dtype), multiplier) for network, multiplier in tail]
    return maps[0][0] if len(maps) == 1 else chain(maps)


def half_for(
    active: Sequence[tuple[Hypernetwork, float]], context: torch.Tensor, side: int
) -> torch.dtype | None:
    """The half precision to compute in, where that is faster and safe; ``None`` for fp32.

    The context's own; or that of autocast, in which the projection will read it anyway.
    """
    dtype = context.dtype
    if dtype is torch.float32 and not is_on_cpu(context):
        dtype = autocast_dtype(context.device.type) or dtype
    return dtype if _may_be_half(active, context, side, dtype) else None


def _may_be_half(
    active: Sequence[tuple[Hypernetwork, float]],
    context: torch.Tensor,
    side: int,
    dtype: torch.dtype,
) -> bool:
    """Whether half precision is faster and safe: on accelerators, if fp16 can't overflow.

    A network in training is computed in the precision of its parameters.
    """
    if is_on_cpu(context) or dtype not in (torch.float16, torch.bfloat16):
        return False
    if any(network.training for network, _ in active):
        return False

    dim = context.shape[-1]
    return dtype is torch.bfloat16 or all(
        abs(m) <= 4 and n.largest_output(dim, side) < LARGEST_HALF for n, m in active
    )
