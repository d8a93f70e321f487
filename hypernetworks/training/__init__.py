"""Training a hypernetwork: the diffusion model is passed in and stays frozen; only the small network changes."""

from .loop import Batch, TrainingSettings, TrainingStep, train

__all__ = ["Batch", "TrainingSettings", "TrainingStep", "train"]
