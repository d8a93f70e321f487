"""Training on a diffusers model: :func:`train_job` does a whole job."""

from .job import Outcome, TrainingJob, Watcher, preset_job, throw_away
from .session import train_job

__all__ = ["Outcome", "TrainingJob", "Watcher", "preset_job", "throw_away", "train_job"]
