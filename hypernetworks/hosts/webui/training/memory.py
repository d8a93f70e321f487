"""Moves the webui's model off the GPU while a training needs the memory, and back for an image.

Each webui has a way of its own. Those of Forge's kind bring their models back by themselves when
they need them; AUTOMATIC1111 and SD.Next have to be told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, ref

from torch import nn

from ..host import has_module, live_unet, loaded_model, say_fault


@dataclass(frozen=True)
class _Moved:
    """A model that is off the GPU.

    Attributes:
        unet: the model's, held weakly: the webui may load another model meanwhile, and free this
            one. SD.Next puts the same UNet into other pipelines.
        back: brings the loaded model back.
    """

    unet: ReferenceType[nn.Module]
    back: Callable[[Any], object]

    def is_loaded(self) -> bool:
        """Whether it is still what the webui has loaded."""
        unet = self.unet()
        return unet is not None and unet is live_unet()


class Away:
    """Whether the model is off the GPU because of a training."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moved: _Moved | None = None

    def __bool__(self) -> bool:
        return self._moved is not None

    def move_away(self) -> None:
        """Free the GPU's memory, after the image that is being generated.

        Never raises: a training that finds too little memory says so itself.
        """
        try:
            with _between_images(), self._lock:
                if self._moved is None or not self._moved.is_loaded():
                    self._moved = _on_the_right_thread(_move)
        except Exception:
            say_fault("the webui's model could not be moved off the GPU; the training starts")

    def bring_back(self) -> None:
        """Undo it, if need be: before each image, and when the last training has ended.

        A model in whose place another one was loaded stays where the webui has put it. Never
        raises.
        """
        if self._moved is None:
            return
        try:
            with self._lock:
                moved, self._moved = self._moved, None
                if moved is not None and moved.is_loaded():
                    moved.back(loaded_model())
        except Exception:
            say_fault("the webui's model could not be moved back to the GPU: load its checkpoint")


AWAY = Away()
"""The one instance; the package stays imported when the webui loads its scripts again."""


def _move() -> _Moved | None:
    """Move the model, or return ``None`` where there is nothing to move."""
    if (unet := live_unet()) is None:  # to ask some webuis for their model would load it
        return None
    model = loaded_model()

    for name in ("backend.memory_management", "ldm_patched.modules.model_management"):
        if has_module(name):  # Forge and Neo; reForge and Classic
            management = __import__(name, fromlist=["unload_all_models"])
            management.unload_all_models()
            management.soft_empty_cache()
            return _Moved(ref(unet), lambda _: None)

    from modules import devices, sd_models

    if hasattr(sd_models, "move_model"):  # SD.Next
        sd_models.move_model(model, devices.cpu)
        devices.torch_gc()
        return _Moved(ref(unet), lambda model: sd_models.move_model(model, devices.device))

    sd_models.send_model_to_cpu(model)  # AUTOMATIC1111; it empties the GPU's cache, too
    return _Moved(ref(unet), sd_models.send_model_to_device)


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
