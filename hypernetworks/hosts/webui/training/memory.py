"""Moves the webui's model off the GPU while a training needs the memory, and back for an image.

Each webui has a way of its own. Those of Forge's kind bring their models back by themselves when
they need them; AUTOMATIC1111 and SD.Next have to be told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from ..host import has_module, live_unet, say_fault


class Away:
    """Whether the model is off the GPU because of a training."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._back: Callable[[], object] | None = None

    def __bool__(self) -> bool:
        return self._back is not None

    def move_away(self) -> None:
        """Free the GPU's memory, after the image that is being generated.

        Never raises: a training that finds too little memory says so itself.
        """
        try:
            with _between_images(), self._lock:
                if self._back is None:
                    self._back = _on_the_right_thread(_move)
        except Exception:
            say_fault("the webui's model could not be moved off the GPU; the training starts")

    def bring_back(self) -> None:
        """Undo it, if need be: before each image, and when the last training has ended.

        Never raises.
        """
        if self._back is None:
            return
        try:
            with self._lock:
                back, self._back = self._back, None
                if back is not None:
                    back()
        except Exception:
            say_fault("the webui's model could not be moved back to the GPU: load its checkpoint")


AWAY = Away()
"""The one instance; the package stays imported when the webui loads its scripts again."""


def _move() -> Callable[[], object] | None:
    """Move the model; returns what brings it back, or ``None`` where there is nothing to move."""
    if live_unet() is None:  # to ask some webuis for their model would load it
        return None

    for name in ("backend.memory_management", "ldm_patched.modules.model_management"):
        if has_module(name):  # Forge and Neo; reForge and Classic
            management = __import__(name, fromlist=["unload_all_models"])
            management.unload_all_models()
            management.soft_empty_cache()
            return lambda: None

    from modules import devices, sd_models, shared

    model = shared.sd_model
    if hasattr(sd_models, "move_model"):  # SD.Next
        sd_models.move_model(model, devices.cpu)
        devices.torch_gc()
        return lambda: sd_models.move_model(model, devices.device)

    sd_models.send_model_to_cpu(model)  # AUTOMATIC1111; it empties the GPU's cache, too
    return lambda: sd_models.send_model_to_device(model)


def _between_images() -> Any:
    """The webui's own lock around each job, where it has one."""
    try:
        from modules.call_queue import queue_lock
    except ImportError:
        return nullcontext()
    return queue_lock


def _on_the_right_thread(work: Callable[[], Any]) -> Any:
    """Forge moves models on one thread only."""
    if not has_module("modules_forge.main_thread"):
        return work()
    from modules_forge import main_thread

    return main_thread.run_and_wait_result(work)
