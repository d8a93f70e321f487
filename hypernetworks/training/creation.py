"""The settings of a new network, and the rules for its name."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

from ..engine.structure import Structure
from ..errors import TrainingSettingsError
from ..files.naming import DEVICE

LONGEST_NAME = 100
"""Characters of a network's name."""


@dataclass(frozen=True)
class Creation:
    """How a fresh network is built; see :func:`~hypernetworks.engine.initialising.create_network`.

    Attributes:
        structure: of all its MLPs.
        initialisation, zero_last, seed: as there. A zero last layer is left out where the structure
            can't have one.
        self_attention: whether it has networks for self-attention as well as for the text.
    """

    structure: Structure = field(
        default_factory=lambda: Structure((1, 2, 1), "relu", activate_output=False)
    )
    initialisation: str = "Normal"
    zero_last: bool = True
    self_attention: bool = True
    seed: int = 0


def check_name(name: str) -> None:
    """Refuse names that no file or tag can have.

    Raises:
        TrainingSettingsError: what is wrong with it.
    """
    # A tag ends at ':' and '>', and shells and disks have rules of their own.
    begins_well = name[:1].isalnum()
    if (
        not begins_well
        or len(name) > LONGEST_NAME
        or not all(map(_can_be_in_a_name, name))
        or name != name.rstrip(" .")
        or name == "None"
    ):
        raise TrainingSettingsError(
            f'the name "{name}" can\'t be used: begin with a letter or digit, then letters, '
            "digits, spaces and ._-+()"
        )

    if DEVICE.fullmatch(name):
        raise TrainingSettingsError(f'the name "{name}" is a device on Windows: choose another')


def _can_be_in_a_name(character: str) -> bool:
    """Letters, digits and a few signs; accents that stand as characters of their own belong to
    their letters.
    """
    return (
        character.isalnum()
        or character in "_ .()+-"
        or unicodedata.category(character).startswith("M")
    )
