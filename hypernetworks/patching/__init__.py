"""How a foreign UNet is altered and restored, without importing any host."""

from .applying import apply, apply_at, apply_per_picture
from .handle import Handle, RowsOf
from .seam import is_plain_linear, is_torchs_own
from .site_multipliers import Networks
from .sites import Site, find_sites

__all__ = [
    "Handle",
    "Networks",
    "RowsOf",
    "Site",
    "apply",
    "apply_at",
    "apply_per_picture",
    "find_sites",
    "is_plain_linear",
    "is_torchs_own",
]
