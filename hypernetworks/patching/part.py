"""The old name of :mod:`.site_multipliers`, until hosts/fit.py imports that."""

from .site_multipliers import Networks, Part

__all__ = ["Networks", "Part"]
