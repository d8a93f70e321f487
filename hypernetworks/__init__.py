"""Hypernetworks for Stable Diffusion: read and write them, understand their tags, apply them to any
UNet.

>>> import hypernetworks as hn                                                    # doctest: +SKIP
>>> clean, tags = hn.parse("a red apple <hypernet:ink:0.8>")
>>> with hn.apply(pipeline.unet, [(hn.read("ink.safetensors"), tags[0].multiplier)]):
...     picture = pipeline(clean).images[0]

Importing the package does no work: everything below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
