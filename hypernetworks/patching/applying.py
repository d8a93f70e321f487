"""``apply()`` and its variants: check everything, hook the UNet, and return a handle."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..engine.stack import Stack
from .arguments import check_arguments
from .checks import check, check_shared, unwrapped
from .foreign import check_foreign
from .handle import CHANGING, Handle, OnError, RowsOf, handles_of, mark_with, seams_of
from .seam import IsDense, Prepare, is_plain_linear, nothing
from .site_multipliers import Networks, SiteMultipliers
from .sites import ORIGINAL, Site, find_sites


def apply(
    unet: nn.Module,
    networks: Networks,
    *,
    on_error: OnError | None = None,
    is_dense: IsDense = is_plain_linear,
) -> Handle:
    """Apply networks to a UNet, at the inputs of its ``to_k`` and ``to_v``.

    They are active until the handle is removed. Linear networks on self-attention are folded into
    the weights that ``to_k`` and ``to_v`` multiply by. The modules' own weights are never written
    to, and changes to them are noticed.

    A second call replaces the networks of the first, until its handle is removed. Everything is
    checked before anything is changed. Without a network, or with multiplier 0 throughout, no hook
    is registered.

    Args:
        unet: any module that contains attention modules with ``to_q``, ``to_k`` and ``to_v``.
        networks: ``(network, multiplier)`` in the order of application. The multiplier is a number,
            a text as in a tag, such as ``"0@0,1@1"`` or ``"0.8:stop=0.5"``, or a
            :class:`Multiplier`.
        on_error: called if the arithmetic fails in the middle of a UNet call (out of memory, for
            instance); the call then continues without the networks. By default, the UNet call
            raises the error.
        is_dense: called before a folded projection is used: whether ``module(x)`` is
            ``F.linear(x, module.weight)`` at that moment. By default, whether it is torch's own
            linear layer.

    Returns:
        The handle, also a context manager. The step is 0 until :meth:`Handle.at` is called.

    Raises:
        MultiplierError: a multiplier is invalid.
        TagError: block factors don't fit this UNet.
        NoAttentionError: no module has ``to_q``, ``to_k`` and ``to_v``.
        NoMatchingWidthError: no network has any of the UNet's widths.
        PatchError: the UNet bypasses ``to_k`` and ``to_v``.
    """
    return apply_at(unet, None, [networks], on_error=on_error, is_dense=is_dense)


def apply_per_picture(
    unet: nn.Module,
    pictures: Sequence[Networks],
    rows_of: RowsOf,
    *,
    on_error: OnError | None = None,
) -> Handle:
    """As :func:`apply`, with different networks for each image of a batch.

    Args:
        unet: as for :func:`apply`.
        pictures: the networks of each image; an empty list leaves that image unchanged.
        rows_of: called at the start of each UNet call; returns the image that each row of the batch
            belongs to. If it returns ``None``, the first image's networks act on all rows.
        on_error: as for :func:`apply`.

    Raises:
        PatchError, MultiplierError, TagError: as :func:`apply`; a network must have one of the
            UNet's widths.
    """
    return apply_at(unet, None, pictures, rows_of, on_error=on_error)


def apply_at(
    unet: nn.Module,
    sites: Sequence[Site] | None,
    pictures: Sequence[Networks],
    rows_of: RowsOf | None = None,
    *,
    on_error: OnError | None = None,
    is_dense: IsDense = is_plain_linear,
    prepare: Prepare = nothing,
) -> Handle:
    """Both of the above, for hosts that have searched the UNet already.

    Args:
        unet: as for :func:`apply`.
        sites: the current result of :func:`find_sites` for this UNet; ``None`` to search it here.
        pictures: as for :func:`apply_per_picture`; without ``rows_of``, one for the whole batch.
        rows_of: as for :func:`apply_per_picture`.
        on_error, is_dense: as for :func:`apply`.
        prepare: called with a dense projection before its weight is used.

    Raises:
        PatchError, MultiplierError, TagError: as :func:`apply`.
    """
    # All checks come first: an error leaves the UNet as it was.
    check_arguments(unet, pictures)
    given, unet = unet, unwrapped(unet)
    sites = find_sites(unet) if sites is None else sites
    check(unet, [Stack([network for network, _ in networks]) for networks in pictures], sites)
    per_image = [SiteMultipliers(networks, sites) for networks in pictures]
    check_shared(per_image, sites)

    with CHANGING:
        check_foreign(sites, seams_of(unet))
        handles = handles_of(unet)
        compiled = given if ORIGINAL in vars(given).get("_modules", {}) else None
        handle = Handle(unet, per_image, sites, rows_of, on_error, is_dense, prepare, compiled)
        try:
            mark_with(unet, [*handles, handle])
            # One handle is active at a time; the one below waits until this one is removed.
            if handles:
                handles[-1]._uninstall()
            handle._install(unet)
        except BaseException:  # nobody has the handle yet
            handle.remove()
            raise

    return handle
