"""The one table of model families: what they are called, and the context widths of their UNets.

Needs no torch, so that the help of the command line stays fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One family of models that hypernetworks are made for.

    Attributes:
        key: as the command line spells it.
        label: as cards and messages spell it.
        text_width: width of the text context, which cross-attention takes.
        self_widths: widths of the feature maps, which self-attention takes.
    """

    key: str
    label: str
    text_width: int
    self_widths: tuple[int, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """All context widths, ascending."""
        return tuple(sorted({self.text_width, *self.self_widths}))


FAMILIES: tuple[Family, ...] = (
    Family("sd1", "SD1", 768, (320, 640, 1280)),
    Family("sd2", "SD2", 1024, (320, 640, 1280)),
    Family("sdxl", "SDXL", 2048, (640, 1280)),
    Family("miniature", "miniature", 192, (96, 160)),
)
PUBLIC: tuple[Family, ...] = FAMILIES[:3]
"""Those that others train networks for; the miniature is this project's own."""
LABELS: dict[int, str] = {family.text_width: family.label for family in PUBLIC}
"""Label by the text width that only this family has."""
BY_KEY: dict[str, Family] = {family.key: family for family in FAMILIES}


def family_label(widths: Iterable[int]) -> str:
    """The family that a network of these widths was made for: "SD1", "SD1 or SD2", or "unknown"."""
    here = set(widths)
    found = [label for width, label in LABELS.items() if width in here]
    return " or ".join(found) if found else "unknown"
