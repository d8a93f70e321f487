"""The one table of model families: what they are called, and the context widths of their UNets.

Needs no torch, so that the help of the command line stays fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
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
"""Families that others train networks for; the miniature is this project's own."""
LABELS: dict[int, str] = {family.text_width: family.label for family in PUBLIC}
"""Label by text width; each family has its own."""
BY_KEY: dict[str, Family] = {family.key: family for family in FAMILIES}


def family_label(widths: Iterable[int]) -> str:
    """The family that a network with these widths is for: "SD1", "SD1 or SD2", or "unknown"."""
    here = set(widths)
    found = [label for width, label in LABELS.items() if width in here]
    return " or ".join(found) if found else "unknown"


def is_of_another_family(
    widths: AbstractSet[int], here: AbstractSet[int | None], cross: AbstractSet[int | None]
) -> bool:
    """Whether a network is for another family, so that its widths match only by chance.

    768, for instance, is SD1's text width, and a width of features in the SDXL refiner.

    Args:
        widths: of the network.
        here: all context widths of the model.
        cross: its text widths; if one is unknown (packed weights), the result is ``False``.
    """
    families = widths & set(LABELS)
    if not families or not cross or None in cross or families & cross:
        return False
    # The text width must be among them: without it, only self-attention would match.
    made_for_this = widths <= here and bool(widths & cross)
    return not made_for_this


_OTHERS = {1280: "an SDXL refiner", 192: "the miniature"}


def families_of(widths: AbstractSet[int | None]) -> str:
    """The families that have these text widths, for a message."""
    return " or ".join(
        f"{LABELS.get(w) or _OTHERS.get(w) or 'of another kind'} (text width {w})"
        for w in sorted(w for w in widths if w is not None)
    )
