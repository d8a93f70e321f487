"""Training a hypernetwork: the diffusion model is passed in and stays frozen; only the small
network changes.
"""

from .captions import Caption
from .driving import train
from .examples import Batch, Example, Examples
from .health import TrainingStep
from .loop import Run
from .objective import NoiseSchedule
from .rates import RateSchedule
from .settings import PRESETS, Preset, TrainingSettings

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
