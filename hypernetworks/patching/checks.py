"""Checks of a UNet and networks, before anything is changed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..engine.stack import Stack
from ..errors import NoAttentionError, NoMatchingWidthError, PatchError
from .site_multipliers import SiteMultipliers
from .sites import ORIGINAL, Site


def unwrapped(unet: nn.Module) -> nn.Module:
    """The UNet inside the wrappers of ``torch.compile`` and data parallelism."""
    inner = vars(unet).get("_modules", {})
    if ORIGINAL in inner:
        return unwrapped(inner[ORIGINAL])
    if isinstance(unet, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return unwrapped(unet.module)
    return unet


def check(unet: nn.Module, stacks: Sequence[Stack], sites: Sequence[Site]) -> None:
    """Check that networks can be applied to a UNet.

    Raises:
        NoAttentionError, NoMatchingWidthError, PatchError: see :func:`hypernetworks.apply`.
    """
    if not sites:
        raise NoAttentionError(
            f"{type(unet).__name__} has no attention with to_q, to_k and to_v: hypernetworks "
            "need a UNet of the SD1, SD2 or SDXL kind (Flux and SD3 have none of these)"
        )
    if any(_is_fused(unet.get_submodule(site.path)) for site in sites):
        raise PatchError(
            "the attention projections are fused, so to_k and to_v are never called: unfuse them "
            "first"
        )

    twofold = next((site for site in sites if site.to_k is site.to_v), None)
    if twofold is not None:
        raise PatchError(
            f"{twofold.path} uses one module as to_k and to_v, where keys and values can't be "
            "told apart: give it two modules"
        )

    here = {site.width for site in sites}
    for stack in stacks:
        if stack.networks and None not in here and not here & set(stack.widths):
            raise NoMatchingWidthError(
                f"the networks have the widths {list(stack.widths)}, but {type(unet).__name__} has "
                f"{sorted(w for w in here if w is not None)}: they were made for another model"
            )


def check_shared(per_image: Sequence[SiteMultipliers], sites: Sequence[Site]) -> None:
    """Check that attention modules that share a projection get the same multipliers.

    Raises:
        PatchError: they don't.
    """
    first: dict[int, tuple[Site, bool]] = {}

    for site in sites:
        for is_key, module in ((True, site.to_k), (False, site.to_v)):
            other, other_is_key = first.setdefault(id(module), (site, is_key))
            alike = other_is_key == is_key and other.kind == site.kind
            if not alike or not all(image.treats_alike(other, site) for image in per_image):
                raise PatchError(
                    f"{other.path} and {site.path} share a projection, but the networks are to "
                    "act differently in them: leave out attn= and lbw=, or give each its own "
                    "module"
                )


def _is_fused(attention: nn.Module) -> bool:
    """Whether diffusers bypasses ``to_k`` and ``to_v``."""
    # Unfusing leaves the flag set, but changes the processor.
    processor = getattr(attention, "processor", None)
    return getattr(attention, "fused_projections", False) and (
        processor is None or "Fused" in type(processor).__name__
    )
