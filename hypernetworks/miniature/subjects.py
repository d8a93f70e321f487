"""What the miniature was trained on: subjects, background colours and captions.

The lists are the whole vocabulary of the captions. Every choice below is a pure function of the
names, so that training, measurements and documentation always mean the same subjects.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from random import Random

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "red": (226, 74, 70),
    "orange": (247, 148, 60),
    "yellow": (250, 216, 84),
    "green": (96, 186, 108),
    "blue": (84, 146, 226),
    "purple": (156, 108, 206),
    "pink": (246, 164, 200),
}
"""Named backgrounds, sRGB in [0, 255]."""

PICTURED: tuple[str, ...] = ("flat", "ink", "3d", "pixel")
"""Styles with images of their own, in the order of the rendered array.

The base model was trained on the first.
"""
STYLES: tuple[str, ...] = (*PICTURED, "sepia", "night")
"""All styles; ``sepia`` and ``night`` change the colours of the flat image and its background."""
SHIPPED: tuple[str, ...] = ("ink", "sepia", "night")
"""Styles that have a hypernetwork in the miniature."""


@lru_cache(maxsize=1)
def subject_names() -> tuple[str, ...]:
    """Icon names of all subjects, in file order, such as ``"red-apple"``."""
    return tuple((Path(__file__).parent / "subjects.txt").read_text(encoding="utf-8").split())


def spoken(name: str) -> str:
    """The words of an icon name with its article: ``"eagle"`` -> ``"an eagle"``."""
    words = name.replace("-", " ")
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"


def caption(name: str, colour: str) -> str:
    """The caption that measurements use: ``"a red apple on blue"``."""
    return f"{spoken(name)} on {colour}"


def captions() -> list[str]:
    """The caption of every subject on every colour."""
    return [caption(name, colour) for name in subject_names() for colour in COLOURS]


def varied_caption(name: str, colour: str, random: Random) -> str:
    """One of several captions with the same meaning, for training; white needn't be named."""
    words = name.replace("-", " ")
    forms = [
        caption(name, colour),
        caption(name, colour),
        f"{words} on {colour}",
        f"{spoken(name)} on a {colour} background",
        f"{words}, {colour} background",
    ]
    if colour == "white":
        forms += [spoken(name), words]
    return random.choice(forms)


def _fraction(text: str) -> float:
    """A fixed pseudo-random number in [0, 1) for a text, the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def is_held_out_pair(name: str, colour: str) -> bool:
    """Whether this pair was kept from the base model's training (a fifth of all pairs)."""
    # Ranked by hash instead of drawn, so that a new colour doesn't change the choice of the others.
    ranked = sorted((c for c in COLOURS if c != "white"), key=lambda c: _fraction(f"{name} on {c}"))
    count = 1 + (_fraction(f"count {name}") < 0.6)  # 1.6 of 8 colours on average
    return colour in ranked[:count]


def is_held_out_from_styles(name: str) -> bool:
    """Whether no style network was trained on this subject (a fifth of them)."""
    names = sorted(subject_names(), key=lambda n: _fraction(f"style {n}"))
    return name in names[: len(names) // 5]
