"""An example to train on at once: the miniature's own images in blueprint blue and white."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import TrainingDataError
from ...files.writing import replace
from ...hosts.diffusers import Generation
from ...miniature.subjects import COLOURS, caption, subject_names
from ...training.folders import TrainingFolders
from ..job_queue import InterruptedJobError, Update

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...hosts.diffusers import Painter

NAME, KEY, BUTTON = "blueprint", "example", "Train on an example"
"""Of the network, what stands in place of a folder's key, and what begins it."""
PROMPTS = "a penguin on yellow\na rocket on red"
SETTINGS = {"steps": 150, "save_every": 50, "preview_every": 25, "previews": PROMPTS}
"""Where it differs from the preset: after these steps the validation loss of so few pictures would
rise again.
"""
COUNT, STEPS, SEED = 24, 10, 0
SHADOW, MIDDLE, LIGHT = "#0b2545", "#2a6f97", "#f4f1de"
"""Prussian blue to paper, as cyanotypes have them."""


def generate_example(
    painter: Painter,
    training_folders: TrainingFolders,
    tell: Callable[[Update], None],
    cancelled: threading.Event,
) -> Path:
    """The folder of the example's images, which are generated if they don't exist yet.

    Raises:
        TrainingDataError: another model than the miniature is loaded.
        InterruptedJobError: it was stopped; finished images are kept for the next time.
    """
    if not painter.is_miniature:
        raise TrainingDataError(
            "the example is for the miniature: choose it in the Model tab, or add images"
        )

    folder = training_folders.pictures / "example"
    folder.mkdir(parents=True, exist_ok=True)
    for number, words in enumerate(_captions()):
        tell(Update(number, COUNT, f"Generating training images: {number + 1} of {COUNT}"))
        path = folder / f"{words}.png"
        # An example that was interrupted goes on with the images that are missing.
        if not path.exists():
            job = Generation(words, steps=STEPS, seed=number)
            picture = (
                painter.generate(job, lambda _step, _steps: not cancelled.is_set())
                .pictures[0]
                .image
            )
            if cancelled.is_set():
                raise InterruptedJobError
            toned = tone(picture)
            replace(path, lambda temporary, toned=toned: toned.save(temporary, format="PNG"))  # type: ignore[misc]

    return folder


def _captions() -> list[str]:
    """What the pictures show: some subjects, on all colours in turn; the same ones each time."""
    chosen = random.Random(SEED).sample(subject_names(), COUNT)
    return [
        caption(name, list(COLOURS)[number % len(COLOURS)]) for number, name in enumerate(chosen)
    ]


def tone(picture: Image) -> Image:
    """An image in blue and white."""
    from PIL import ImageOps

    grey = ImageOps.autocontrast(ImageOps.grayscale(picture), cutoff=1)
    return ImageOps.colorize(grey, black=SHADOW, mid=MIDDLE, white=LIGHT)
