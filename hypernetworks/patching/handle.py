"""``apply()`` and what it returns: a handle that knows the step, can be removed, and tells what it does."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from types import TracebackType

import torch
from torch import nn

from ..engine.multiplier import Multiplier, Schedule
from ..engine.network import Hypernetwork
from ..engine.stack import KEY, VALUE, Stack
from ..errors import NoAttentionError, NoMatchingWidthError, PatchError
from .sites import CROSS, SELF, Site, find_sites

MARK = "_hypernetwork_handles"
"""Attribute of a patched UNet: its live handles, the acting one last. Gone when the last is removed."""


class _Call(threading.local):
    """What one UNet call remembers, per thread: contexts already transformed. Empty outside a call."""

    def __init__(self) -> None:
        self.running = False
        self.remembered: list[tuple[torch.Tensor, int, tuple[float, ...], torch.Tensor]] = []


class Handle:
    """The networks on one UNet. A context manager; :meth:`remove` restores the UNet exactly.

    Where several handles are on one UNet, the latest acts; when it is removed, the one before it acts again.
    """

    def __init__(self, unet: nn.Module, stack: Stack, multipliers: Sequence[Multiplier], sites: Sequence[Site]) -> None:
        self._unet = weakref.ref(unet)
        self._unet_kind = type(unet).__name__
        self._stack, self._multipliers, self._sites = stack, tuple(multipliers), tuple(sites)
        names = list(dict.fromkeys(site.block for site in sites if site.block is not None))
        self._factors = [multiplier.block_factors(names) for multiplier in self._multipliers]
        self._current: list[tuple[tuple[float, ...], tuple[float, ...]]] = []
        self._removers: list[torch.utils.hooks.RemovableHandle] = []
        self._call = _Call()
        self.at(0, 1)

    def at(self, step: int, total: int, *, hires: bool = False) -> None:
        """Say which step comes next, for schedules.

        Args:
            step: 0 for the first step of the pass, ``total - 1`` for the last.
            total: how many steps the pass really runs.
            hires: whether this is the hires pass.
        """
        strengths = [m.at(step, total, hires=hires) for m in self._multipliers]
        self._current = [self._site_multipliers(site, strengths) for site in self._sites]

    def _site_multipliers(self, site: Site, strengths: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Multipliers of all networks at one attention module: (for keys, for values)."""
        shared = [
            0.0
            if multiplier.attention != "both" and multiplier.attention != site.kind
            else strength * (factors.get(site.block, 1.0) if site.block is not None else 1.0)
            for multiplier, strength, factors in zip(self._multipliers, strengths, self._factors, strict=True)
        ]
        return (
            tuple(s * m.key for s, m in zip(shared, self._multipliers, strict=True)),
            tuple(s * m.value for s, m in zip(shared, self._multipliers, strict=True)),
        )

    def remove(self) -> None:
        """Take this handle's networks off. May be called any number of times, in any order with other handles."""
        unet = self._unet()
        handles: list[Handle] = getattr(unet, MARK, [])
        if unet is None or self not in handles:
            self._uninstall()
            return
        acting = handles[-1] is self
        handles.remove(self)
        self._uninstall()
        if not handles:
            delattr(unet, MARK)
        elif acting:
            handles[-1]._install(unet)

    def _install(self, unet: nn.Module) -> None:
        """Register all hooks; nothing at all where no network can ever have an effect."""
        if all(m.is_zero for m in self._multipliers):
            return
        self._removers += [
            unet.register_forward_pre_hook(self._enter),
            unet.register_forward_hook(self._leave, always_call=True),
        ]
        for index, site in enumerate(self._sites):
            self._removers += [
                projection.register_forward_pre_hook(self._hook(index, side))
                for side, projection in ((KEY, site.to_k), (VALUE, site.to_v))
            ]

    def _uninstall(self) -> None:
        for remover in self._removers:
            remover.remove()
        self._removers.clear()
        self._call.remembered.clear()

    def _enter(self, module: nn.Module, arguments: object) -> None:
        self._call.running = True
        self._call.remembered.clear()  # an interrupt may have kept the last call from ending

    def _leave(self, module: nn.Module, arguments: object, result: object) -> None:
        self._call.running = False
        self._call.remembered.clear()

    def _hook(self, index: int, side: int):  # type: ignore[no-untyped-def]
        """A pre-hook for one projection: replaces its first argument by the transformed context."""
        remember = self._sites[index].kind != SELF

        def hook(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
            multipliers = self._current[index][side]
            if not any(multipliers):
                return None
            if remember and self._call.running:
                changed = self._once_per_call(arguments[0], side, multipliers)
            else:
                changed = self._stack.transform(arguments[0], side, multipliers)
            return None if changed is arguments[0] else (changed, *arguments[1:])

        return hook

    def _once_per_call(self, context: torch.Tensor, side: int, multipliers: tuple[float, ...]) -> torch.Tensor:
        """Transform a context that the layers of one UNet call share, once for all of them.

        The remembered context itself is kept until the call ends, so its address can't come to mean another tensor.
        """
        for seen, seen_side, seen_multipliers, result in self._call.remembered:
            if seen is context and seen_side == side and seen_multipliers == multipliers:
                return result
        result = self._stack.transform(context, side, multipliers)
        self._call.remembered.append((context, side, multipliers, result))
        return result

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        networks = ", ".join(
            f"{n.name} {m}" for n, m in zip(self._stack.networks, self._multipliers, strict=True)
        )
        state = "acting" if self._removers else "not acting"
        here = {site.width for site in self._sites if site.width is not None}
        unmatched = [
            f"{label} {', '.join(map(str, sorted(widths)))}"
            for label, widths in (
                ("model widths without a network:", here - set(self._stack.widths)),
                ("network widths without a place:", set(self._stack.widths) - here),
            )
            if widths and here
        ]
        parts = [f"{networks or 'no networks'} on {self._unet_kind}", f"{len(self._sites)} attention modules", state]
        return f"<hypernetworks: {'; '.join(parts + unmatched)}>"


def apply(
    unet: nn.Module, networks: Sequence[tuple[Hypernetwork, float | str | Schedule | Multiplier]]
) -> Handle:
    """Let networks act on a UNet, through the inputs of its ``to_k`` and ``to_v``, until the handle is removed.

    Applied again, it replaces what was applied before, until it is removed. Everything is checked before anything is
    changed. With no network, or multiplier 0 throughout, no hook is registered at all.

    Args:
        unet: any module that contains attention modules with ``to_q``, ``to_k`` and ``to_v``.
        networks: ``(network, multiplier)`` in the order of application; the multiplier is a number, the tail of a tag
            such as ``"0@0,1@1"`` or ``"0.8:stop=0.5"``, or a :class:`Multiplier`.

    Returns:
        The handle, also a context manager. Until :meth:`Handle.at` is called, step 0 holds.

    Raises:
        MultiplierError: a multiplier that can't be understood.
        TagError: block factors that don't fit this UNet.
        NoAttentionError: nothing here has ``to_k`` and ``to_v``.
        NoMatchingWidthError: no network has any of the UNet's widths.
        PatchError: the UNet bypasses ``to_k`` and ``to_v``.
    """
    multipliers = [Multiplier.of(multiplier) for _, multiplier in networks]
    stack = Stack([network for network, _ in networks])
    sites = find_sites(unet)
    _check(unet, stack, sites)
    handle = Handle(unet, stack, multipliers, sites)
    handles: list[Handle] = getattr(unet, MARK, [])
    if handles:
        handles[-1]._uninstall()
    object.__setattr__(unet, MARK, [*handles, handle])
    handle._install(unet)
    return handle


def _check(unet: nn.Module, stack: Stack, sites: Sequence[Site]) -> None:
    """Everything that can be wrong, before anything is changed."""
    if not sites:
        raise NoAttentionError(
            f"{type(unet).__name__} has no attention with to_q, to_k and to_v: hypernetworks need a UNet of the "
            "SD1, SD2 or SDXL kind (Flux and SD3 have none of these)"
        )
    if any(_is_fused(unet.get_submodule(site.path)) for site in sites):
        raise PatchError("the attention projections are fused, so to_k and to_v are never called: unfuse them first")
    here = {site.width for site in sites}
    if stack.networks and None not in here and not here & set(stack.widths):
        raise NoMatchingWidthError(
            f"the networks have the widths {list(stack.widths)}, but {type(unet).__name__} has "
            f"{sorted(w for w in here if w is not None)}: they were made for another model"
        )


def _is_fused(attention: nn.Module) -> bool:
    """Whether diffusers bypasses ``to_k`` and ``to_v``: by a flag, which unfusing leaves set, and another processor."""
    processor = getattr(attention, "processor", None)
    return getattr(attention, "fused_projections", False) and (
        processor is None or "Fused" in type(processor).__name__
    )


__all__ = ["CROSS", "MARK", "Handle", "apply"]
