"""Checks whether a network fits the loaded model.

The hosts decide this: the engine applies any matching width.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.families import LABELS
from ..engine.multiplier import Multiplier
from ..engine.network import Hypernetwork
from ..errors import NoAttentionError, NoMatchingWidthError
from ..patching import Site
from ..patching.site_multipliers import SiteMultipliers


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
    if not sites:
        raise NoAttentionError(
            "hypernetworks need an SD1, SD2 or SDXL model, and the loaded model is none of these"
        )

    here = {site.width for site in sites}
    cross = {site.width for site in sites if site.kind == "cross"}
    if not any_family and _is_of_another_family(set(network.widths), here, cross):
        raise NoMatchingWidthError(
            f"it was made for {_families(set(network.widths) & set(LABELS))}, "
            f"but the loaded model is {_families(cross)}: it would change the wrong layers, so it is skipped"
        )
    if None not in here and not here & set(network.widths):
        raise NoMatchingWidthError(
            f"it has the widths {', '.join(map(str, network.widths))}, and the loaded model has none of them: "
            "it was made for another model"
        )

    SiteMultipliers([(network, multiplier)], sites)


def _is_of_another_family(widths: set[int], here: set[int | None], cross: set[int | None]) -> bool:
    """Whether widths match only by chance: 768 is the text of SD1, and features of the SDXL
    refiner.

    Args:
        widths: of the network.
        here: all context widths of the model.
        cross: its text widths; where one isn't known (packed weights), nothing is refused.
    """
    families = widths & set(LABELS)
    if not families or not cross or None in cross or families & cross:
        return False
    made_for_this = widths <= here and bool(widths & cross)
    return not made_for_this


_OTHERS = {1280: "an SDXL refiner", 192: "the miniature"}


def _families(widths: set[int] | set[int | None]) -> str:
    return " or ".join(
        f"{LABELS.get(w) or _OTHERS.get(w) or 'of another kind'} (text width {w})"
        for w in sorted(w for w in widths if w is not None)
    )
