"""Networks on another object than the UNet itself: a copy of it, or a part that it shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from ..errors import PatchError
from .seam import Seam
from .sites import Site, find_sites
from .stand_in import StandIn, acting_on


def check_foreign(sites: Sequence[Site], own: Iterable[Seam]) -> None:
    """Raise PatchError where networks are active already, through another object than this UNet.

    Args:
        sites: the UNet's attention modules.
        own: of the handles on this UNet, which may be replaced.
    """
    ours = {id(seam) for seam in own}
    for module in (module for site in sites for module in (site.to_k, site.to_v)):
        there = acting_on(module)
        if there is not None and id(getattr(there.projection, "seam", None)) not in ours:
            raise PatchError(
                "networks act on these attention modules already, applied to another object that "
                "has them too (a shallow copy, or a part of the UNet): remove those first, or "
                "apply all to the same object"
            )


def adopt(copied: nn.Module) -> None:
    """A copy that shares the UNet's hooks runs, such as a replica: let its own modules act, with
    its own weights.
    """
    for site in find_sites(copied):
        for module in (site.to_k, site.to_v):
            found = acting_on(module)
            if found is not None and found.projection is not None:
                if not found.stands_for(module):
                    StandIn(module).put(found.projection)
            else:
                raise PatchError(
                    f"a copy of the UNet runs in which {site.path} is not the UNet's own, so the "
                    "networks can't act there: apply them to the copy"
                )
