"""Hypernetworks for Stable Diffusion: read and write them, understand their tags, apply them to any
UNet.

>>> import hypernetworks as hn                                                    # doctest: +SKIP
>>> clean, tags = hn.parse("a red apple <hypernet:ink:0.8>")
>>> with hn.apply(pipeline.unet, [(hn.read("ink.safetensors"), tags[0].multiplier)]):
...     picture = pipeline(clean).images[0]

Importing the package does no work: everything below is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .first_use import loading

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .engine.multiplier import Multiplier, Schedule
    from .engine.network import Hypernetwork
    from .engine.structure import Structure
    from .errors import HypernetworkError
    from .files import read, write
    from .library import Library
    from .patching import Handle, apply
    from .prompts import Tag, parse

_HOMES = {
    "Handle": "patching",
    "Hypernetwork": "engine.network",
    "HypernetworkError": "errors",
    "Library": "library",
    "Multiplier": "engine.multiplier",
    "Schedule": "engine.multiplier",
    "Structure": "engine.structure",
    "Tag": "prompts",
    "apply": "patching",
    "parse": "prompts",
    "read": "files",
    "write": "files",
}

__all__ = [
    "Handle",
    "Hypernetwork",
    "HypernetworkError",
    "Library",
    "Multiplier",
    "Schedule",
    "Structure",
    "Tag",
    "apply",
    "parse",
    "read",
    "write",
]


__getattr__ = loading(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
