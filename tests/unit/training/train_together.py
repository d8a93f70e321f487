"""One process of a toy run: ``torchrun`` starts several, or a test starts one.

Writes what came out to a file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from toys import Toy, toy_examples, toy_settings

from hypernetworks.training import TrainingStep, train
from hypernetworks.training.processes import together
from hypernetworks.training.validation import ValidationLoss


def main(folder: Path, steps: int) -> None:
    """Train, save, and keep the losses."""
    seen: list[TrainingStep] = []
    with together() as world:
        toy = Toy()
        validation = ValidationLoss(toy_examples(3), toy.contexts, 0) if world.is_first else None
        settings = toy_settings(steps=8, accumulation=2, optimiser="SGD", rate="1", watch_every=4)
        run = toy.run(settings, folder, validation=validation)
        train(run, on_step=seen.append, should_stop=lambda: world.is_first and len(seen) == steps)
        if world.is_first:
            torch.save([(s.loss, s.gradient_norm, s.validation) for s in seen], folder / "seen.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
