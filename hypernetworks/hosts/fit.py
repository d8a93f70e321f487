"""Checks whether a network fits the loaded model.

The hosts decide this: the engine applies any matching width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..engine.families import LABELS, families_of, is_of_another_family
from ..engine.multiplier import Multiplier
from ..engine.network import Hypernetwork
from ..errors import NoAttentionError, NoMatchingWidthError

if TYPE_CHECKING:
    from ..patching import Site


def check_fit(
    network: Hypernetwork,
    multiplier: Multiplier,
    sites: Sequence[Site],
    *,
    any_family: bool = False,
) -> None:
    """Raise when this network can't be applied to the UNet that has these attention modules.

    Args:
        sites: what :func:`~hypernetworks.patching.find_sites` gave.
        any_family: let a network of another model family act on the self-attention widths that
            happen to match.

    Raises:
        NoAttentionError: the model has no attention of the kind that hypernetworks act on.
        NoMatchingWidthError: made for another model family, or none of the widths is there.
        TagError: block factors that don't fit.
    """
    from ..patching.site_multipliers import SiteMultipliers  # not when a webui starts

    check_widths(network.widths, sites, any_family=any_family)
    SiteMultipliers([(network, multiplier)], sites)


def check_widths(widths: Sequence[int], sites: Sequence[Site], *, any_family: bool = False) -> None:
    """The part of :func:`check_fit` that needs a network's context widths alone.

    Raises:
        NoAttentionError, NoMatchingWidthError: as there.
    """
    if not sites:
        raise NoAttentionError(
            "hypernetworks need an SD1, SD2 or SDXL model, and the loaded model is none of these"
        )

    here = {site.width for site in sites}
    cross = {site.width for site in sites if site.kind == "cross"}
    if not any_family and is_of_another_family(set(widths), here, cross):
        raise NoMatchingWidthError(
            f"it was made for {families_of(set(widths) & set(LABELS))}, "
            f"but the loaded model is {families_of(cross)}: it would change the wrong layers, so "
            "it is skipped"
        )
    if None not in here and not here & set(widths):
        raise NoMatchingWidthError(
            f"it has the widths {', '.join(map(str, widths))}, and the loaded model has "
            "none of them: it was made for another model"
        )
