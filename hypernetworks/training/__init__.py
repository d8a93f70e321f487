"""Training a hypernetwork: the diffusion model is passed in and stays frozen; only the small
network changes.

Importing the package does no work: everything below is loaded when it is first used. A webui builds
its form from the settings alone, and must not wait for the rest at each start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..first_use import loading

if TYPE_CHECKING:
    from .captions import Caption
    from .driving import train
    from .examples import Batch, Example, Examples
    from .health import TrainingStep
    from .loop import Run
    from .objective import NoiseSchedule
    from .rates import RateSchedule
    from .settings import PRESETS, Preset, TrainingSettings

_HOMES = {
    "PRESETS": "settings",
    "Batch": "examples",
    "Caption": "captions",
    "Example": "examples",
    "Examples": "examples",
    "NoiseSchedule": "objective",
    "Preset": "settings",
    "RateSchedule": "rates",
    "Run": "loop",
    "TrainingSettings": "settings",
    "TrainingStep": "health",
    "train": "driving",
}

__all__ = [
    "PRESETS",
    "Batch",
    "Caption",
    "Example",
    "Examples",
    "NoiseSchedule",
    "Preset",
    "RateSchedule",
    "Run",
    "TrainingSettings",
    "TrainingStep",
    "train",
]


__getattr__ = loading(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
