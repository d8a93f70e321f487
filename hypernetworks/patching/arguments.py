"""Checks what ``apply`` is given, and shows the right call where it is something else."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..engine.network import Hypernetwork
from ..errors import PatchError

_CALL = "write apply(pipeline.unet, [(network, 0.7)])"


def check_arguments(unet: object, pictures: Sequence[object]) -> None:
    """Raise where the UNet or the networks are not what ``apply`` takes.

    Args:
        unet: should be a module.
        pictures: for each picture, what should be a sequence of ``(network, multiplier)``.

    Raises:
        PatchError: with the right call.
    """
    if not isinstance(unet, nn.Module):
        inner = getattr(unet, "unet", None)
        hint = ", but it has one" if isinstance(inner, nn.Module) else ""
        raise PatchError(f"{_kind(unet)} is not a UNet{hint}: {_CALL}")

    for networks in pictures:
        _check_networks(networks)


def _check_networks(networks: object) -> None:
    if isinstance(networks, Hypernetwork) or _is_pair(networks):
        raise PatchError(f"the networks must be in a list: {_CALL}")
    if isinstance(networks, (str, bytes)) or not isinstance(networks, Sequence):
        raise PatchError(f"{_kind(networks)} is not a list of networks: {_CALL}")
    for item in networks:
        if isinstance(item, Hypernetwork):
            raise PatchError(f"each network needs a multiplier: {_CALL}")
        if not _is_pair(item):
            raise PatchError(f"{_kind(item)} is not a pair of a network and a multiplier: {_CALL}")


def _is_pair(item: object) -> bool:
    return isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], Hypernetwork)


def _kind(thing: object) -> str:
    if thing is None:
        return "None"
    name = type(thing).__name__
    return f"{'an' if name[0] in 'AEIOUaeio' else 'a'} {name}"
