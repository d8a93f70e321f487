"""The network that a job begins with, and what the job came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ....engine.initialising import can_begin_at_zero, create_network
from ....engine.network import Hypernetwork
from ....files import read
from ....training import Run
from ....training.checkpoints import best_file
from .frozen_model import FrozenModel
from .job import Outcome, TrainingJob


def network_of(job: TrainingJob, model: FrozenModel, model_name: str) -> Hypernetwork:
    """The network to train: a fresh one, or that of a file; fp32, on the model's device.

    Raises:
        FileError: the file can't be read.
    """
    if job.network is None:
        network = _fresh(job, model)
    else:
        network = read(job.network)
        network.name = job.name
        network.to("cpu", torch.float32)

    network.to(model.device, torch.float32)
    # The hash is another model's, where the file was trained on another.
    network.provenance = replace(
        network.provenance, name=job.name, checkpoint_name=model_name, checkpoint_hash=None
    )
    return network


def _fresh(job: TrainingJob, model: FrozenModel) -> Hypernetwork:
    creation = job.creation
    return create_network(
        job.name,
        creation.structure,
        model.widths(creation.self_attention),
        initialisation=creation.initialisation,
        zero_last=creation.zero_last and can_begin_at_zero(creation.structure),
        seed=creation.seed,
    )


def outcome_of(job: TrainingJob, run: Run, messages: Sequence[str]) -> Outcome:
    """What a run came to, by what is in its folder."""
    file = job.folder / f"{job.name}-{run.network.provenance.step}{job.suffix}"
    best = best_file(job.folder, job.name, job.suffix)
    # Where nothing is measured any more, the best of earlier steps is none of this run's result.
    has_best = run.validation is not None and run.best.step > 0 and best.exists()

    return Outcome(
        file if file.exists() else None,
        run.step,
        run.is_finished,
        tuple(messages),
        best if has_best else None,
        run.best.step,
        run.best.loss,
    )
