"""A finished image of this run of the studio."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """A finished image in the studio's own folder for this run."""

    path: str
    infotext: str
