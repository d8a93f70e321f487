"""Which model is loaded: the miniature, or a checkpoint of the user's, on a device that this
machine has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from ..console import pasted_path
from ..devices import choose_device, empty_cache, is_out_of_memory
from ..errors import CheckpointError
from ..hosts.diffusers import Painter
from ..hosts.diffusers.checkpoints.loading import checkpoint_family
from ..hosts.diffusers.samplers import SAMPLERS
from .job_queue import JobQueue, Update

MINIATURE, CHECKPOINT = "The miniature", "A checkpoint"


def checked_path(text: str) -> Path:
    """The checkpoint that a typed path means, looked at so far as its header goes.

    Raises:
        CheckpointError: nothing was typed, there is no such thing, or it is no checkpoint of a kind
            that can be used.
    """
    if not text.strip().strip("\"'"):
        raise CheckpointError(
            "type the path of a .safetensors checkpoint or of a diffusers folder first"
        )

    # The header tells in a moment what loading would tell after minutes.
    path = pasted_path(text)
    checkpoint_family(path)
    return path


def load(
    job_queue: JobQueue,
    path: Path | None,
    device: str,
    half: bool,
    tell: Callable[[Update], None],
    cancelled: threading.Event,
    vae: Path | None = None,
) -> str:
    """Load a model in place of the present one, which is kept when that fails.

    Runs as a job of the queue.

    Returns:
        What to tell.

    Raises:
        DeviceError: this machine can't use the device.
        CheckpointError: it can't be used, or there is not enough memory for it.
    """
    chosen = choose_device(device)
    name = "the miniature" if path is None else path.name
    tell(Update(note=f"Loading {name} on {device.upper()}: a large model takes a minute or two …"))

    try:
        painter = Painter(
            path, job_queue.library, device=chosen, half=half and chosen != "cpu", vae=vae
        )
    # The present model is still in use: without enough memory for both, it is the one that stays.
    except (RuntimeError, MemoryError) as error:
        empty_cache(chosen)
        reason = "not enough memory" if is_out_of_memory(error) else str(error)
        raise CheckpointError(
            f"{name}: it can't be loaded ({reason}); try half precision, or another device"
        ) from error
    # Loading can't be interrupted half-way; what came of it is dropped here.
    if cancelled.is_set():
        return f"{name} was not loaded: interrupted"

    job_queue.put(painter)
    return f"{name} is loaded"


def samplers(job_queue: JobQueue) -> list[str]:
    """What may be chosen, the model's own first."""
    return list(dict.fromkeys([job_queue.painter.default_sampler, *SAMPLERS]))
