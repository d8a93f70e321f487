"""``apply()`` and what it returns: a handle that knows the step, can be removed, and tells what it does."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import nn

from ..engine.stack import KEY, VALUE, Stack
from ..errors import NoAttentionError, NoMatchingWidthError, PatchError
from .arguments import check_arguments
from .folded import FoldedProjection
from .part import Networks, Part
from .projection import Projection
from .seam import IsDense, Seam, is_plain_linear
from .sites import CROSS, SELF, Site, find_sites

MARK = "_hypernetwork_handles"
"""Attribute of a patched UNet: its live handles, the acting one last. Gone when the last is removed."""


_CHANGING = threading.RLock()
"""Held while handles come and go: threads that do so on one UNet must not lose each other's."""

RowsOf = Callable[[tuple[Any, ...], dict[str, Any]], "Sequence[int] | None"]
"""Positional and keyword arguments of one UNet call -> for each of its rows, which picture it belongs to."""


OnError = Callable[[Exception], None]
"""Told of an error inside a hook, after the hooks have been taken off."""


class Handle:
    """The networks on one UNet. A context manager; :meth:`remove` restores the UNet exactly.

    Where several handles are on one UNet, the latest acts; when it is removed, the one before it acts again.

    Args:
        unet: what is patched.
        parts: one for all rows of the UNet's batch, or one per picture.
        sites: the attention modules of ``unet``.
        rows_of: says which picture each row belongs to; needed where there are several parts.
        on_error, is_dense: see :func:`apply`.
    """

    def __init__(
        self,
        unet: nn.Module,
        parts: Sequence[Part],
        sites: Sequence[Site],
        rows_of: RowsOf | None = None,
        on_error: OnError | None = None,
        is_dense: IsDense = is_plain_linear,
    ) -> None:
        self._unet = weakref.ref(unet)
        self._unet_kind = type(unet).__name__
        self._parts, self._sites, self._rows_of = tuple(parts), tuple(sites), rows_of
        self._on_error = on_error
        self._removers: list[torch.utils.hooks.RemovableHandle] = []
        self._seam = Seam(parts, self._fail, is_dense)
        self._projections = [
            self._projection(index, side, module)
            for index, site in enumerate(self._sites)
            for side, module in ((KEY, site.to_k), (VALUE, site.to_v))
        ]

    def _projection(self, index: int, side: int, module: nn.Module) -> Projection:
        """Networks of single pictures can't be folded into a weight that all of them share, and text is cheap."""
        kind = self._sites[index].kind
        foldable = kind == SELF and len(self._parts) == 1 and self._parts[0].ends_linear
        return (FoldedProjection if foldable else Projection)(self._seam, index, side, kind, module)

    @property
    def unet(self) -> nn.Module | None:
        """What it acts on; ``None`` when that is gone."""
        return self._unet()

    def at(self, step: int, total: int, *, hires: bool = False) -> None:
        """Say which step comes next, for schedules.

        Args:
            step: 0 for the first step of the pass, ``total - 1`` for the last.
            total: how many steps the pass really runs.
            hires: whether this is the hires pass.
        """
        for part in self._parts:
            part.at(step, total, hires=hires)

    def remove(self) -> None:
        """Take this handle's networks off. May be called any number of times, in any order with other handles."""
        with _CHANGING:
            unet = self._unet()
            handles: list[Handle] = getattr(unet, MARK, [])
            self._uninstall()
            if unet is None or self not in handles:
                return
            others = [handle for handle in handles if handle is not self]
            if others:
                object.__setattr__(unet, MARK, others)
            else:
                delattr(unet, MARK)
            if others and handles[-1] is self:
                others[-1]._install(unet)

    def _install(self, unet: nn.Module) -> None:
        """Register all hooks; nothing at all where no network can ever have an effect."""
        if all(part.is_zero for part in self._parts):
            return
        self._removers.append(unet.register_forward_pre_hook(self._enter, with_kwargs=True))
        self._removers.append(unet.register_forward_hook(self._leave, always_call=True))
        for projection in self._projections:
            projection.install()

    def _uninstall(self) -> None:
        for remover in self._removers:
            remover.remove()
        self._removers.clear()
        for projection in self._projections:
            projection.uninstall()
        self._seam.call.end()

    def _fail(self, error: Exception) -> None:
        """An error in the middle of a UNet call: raise it, or take the networks off and tell."""
        if self._on_error is None:
            raise error
        with _CHANGING:
            self._uninstall()
        self._on_error(error)

    def _enter(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._seam.call.begin(
            self._rows_of(arguments, named) if self._rows_of is not None else None
        )

    def _leave(self, module: nn.Module, arguments: object, result: object) -> None:
        self._seam.call.end()

    @property
    def paths(self) -> dict[str, str]:
        """How each projection was last served: ``"folded"`` into its weight, by its ``"input"``, or ``"untouched"``.

        Only those that were called since the networks began to act.
        """
        names = (f"{site.path}.{name}" for site in self._sites for name in ("to_k", "to_v"))
        return {name: p.path for name, p in zip(names, self._projections, strict=True) if p.path}

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        networks = " | ".join(filter(None, map(str, self._parts)))
        state = "acting" if self._removers else "not acting"
        here = {site.width for site in self._sites if site.width is not None}
        theirs = {width for part in self._parts for width in part.stack.widths}
        unmatched = [
            f"{label} {', '.join(map(str, sorted(widths)))}"
            for label, widths in (
                ("model widths without a network:", here - theirs),
                ("network widths without a place:", theirs - here),
            )
            if widths and here
        ]
        parts = [
            f"{networks or 'no networks'} on {self._unet_kind}",
            f"{len(self._sites)} attention modules",
            state,
        ]
        return f"<hypernetworks: {'; '.join(parts + unmatched)}>"


def apply(
    unet: nn.Module,
    networks: Networks,
    *,
    on_error: OnError | None = None,
    is_dense: IsDense = is_plain_linear,
) -> Handle:
    """Let networks act on a UNet, through the inputs of its ``to_k`` and ``to_v``, until the handle is removed.

    Linear networks on self-attention are folded into the weights that ``to_k`` and ``to_v`` multiply by; the modules'
    own weights are never written to, and when something changes these, that is seen.

    Applied again, it replaces what was applied before, until it is removed. Everything is checked before anything is
    changed. With no network, or multiplier 0 throughout, no hook is registered at all.

    Args:
        unet: any module that contains attention modules with ``to_q``, ``to_k`` and ``to_v``.
        networks: ``(network, multiplier)`` in the order of application; the multiplier is a number, the tail of a tag
            such as ``"0@0,1@1"`` or ``"0.8:stop=0.5"``, or a :class:`Multiplier`.
        on_error: when the arithmetic fails in the middle of a UNet call (out of memory, say), this is called and the
            call goes on without the networks; without it the error is raised through the UNet.
        is_dense: asked before a folded projection is used, whether ``module(x)`` would now be
            ``F.linear(x, module.weight)``, side effects included; by default whether it is torch's own linear layer. A
            host whose layers do more at each call, such as bringing their weight up to date, can do that here.

    Returns:
        The handle, also a context manager. Until :meth:`Handle.at` is called, step 0 holds.

    Raises:
        MultiplierError: a multiplier that can't be understood.
        TagError: block factors that don't fit this UNet.
        NoAttentionError: nothing here has ``to_k`` and ``to_v``.
        NoMatchingWidthError: no network has any of the UNet's widths.
        PatchError: the UNet bypasses ``to_k`` and ``to_v``.
    """
    return _apply(unet, [networks], None, on_error, is_dense)


def apply_per_picture(
    unet: nn.Module,
    pictures: Sequence[Networks],
    rows_of: RowsOf,
    *,
    on_error: OnError | None = None,
) -> Handle:
    """Like :func:`apply`, with networks of its own for every picture of a batch.

    Args:
        unet: as for :func:`apply`.
        pictures: the networks of each picture; an empty list leaves that picture as it is.
        rows_of: says, at the start of each UNet call, which picture each row of the batch belongs to. Where it
            returns ``None``, the first picture's networks act on all rows.
        on_error: as for :func:`apply`.

    Raises:
        PatchError, MultiplierError, TagError: as :func:`apply`; a network must have one of the UNet's widths.
    """
    return _apply(unet, pictures, rows_of, on_error, is_plain_linear)


def _apply(
    unet: nn.Module,
    pictures: Sequence[Networks],
    rows_of: RowsOf | None,
    on_error: OnError | None,
    is_dense: IsDense,
) -> Handle:
    check_arguments(unet, pictures)
    sites = find_sites(unet)
    _check(unet, [Stack([network for network, _ in networks]) for networks in pictures], sites)
    parts = [Part(networks, sites) for networks in pictures]
    handle = Handle(unet, parts, sites, rows_of, on_error, is_dense)
    with _CHANGING:
        handles: list[Handle] = getattr(unet, MARK, [])
        try:
            object.__setattr__(unet, MARK, [*handles, handle])
            if handles:
                handles[-1]._uninstall()
            handle._install(unet)
        except BaseException:  # nobody has the handle yet
            handle.remove()
            raise
    return handle


def _check(unet: nn.Module, stacks: Sequence[Stack], sites: Sequence[Site]) -> None:
    """Everything that can be wrong, before anything is changed."""
    if not sites:
        raise NoAttentionError(
            f"{type(unet).__name__} has no attention with to_q, to_k and to_v: hypernetworks need a UNet of the "
            "SD1, SD2 or SDXL kind (Flux and SD3 have none of these)"
        )
    if any(_is_fused(unet.get_submodule(site.path)) for site in sites):
        raise PatchError(
            "the attention projections are fused, so to_k and to_v are never called: unfuse them first"
        )
    here = {site.width for site in sites}
    for stack in stacks:
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


__all__ = ["CROSS", "MARK", "Handle", "apply", "apply_per_picture"]
