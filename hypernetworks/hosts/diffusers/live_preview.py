"""Live preview: cheap approximations of the latents of a running job."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from PIL.Image import Image

SECONDS = 0.25
"""At least this long between two looks."""
_COLOURS = {
    False: (
        (0.298, 0.207, 0.208),
        (0.187, 0.286, 0.173),
        (-0.158, 0.189, 0.264),
        (-0.184, -0.271, -0.473),
    ),
    True: (
        (0.365, 0.423, 0.434),
        (-0.253, -0.004, 0.107),
        (0.108, 0.111, -0.036),
        (-0.317, -0.249, -0.219),
    ),
}
"""Linear maps from the four latent channels to red, green and blue, for SD (and for SDXL), as
webuis use them.
"""


class LivePreview:
    """Watches one job's scheduler and shows what the model expects the image to become.

    Args:
        pipeline: whose scheduler serves this job alone; its ``step`` is wrapped.
        show: gets each look.
    """

    def __init__(self, pipeline: Any, show: Callable[[Image], object]) -> None:
        self._pipeline, self._show = pipeline, show
        self._expected: torch.Tensor | None = None
        self._next = time.monotonic() + SECONDS
        original = pipeline.scheduler.step

        def step(*args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            if isinstance(output, tuple):  # (next sample, expected end), some give only the first
                self._expected = output[-1]
            return output

        pipeline.scheduler.step = step

    @classmethod
    def watching(cls, pipeline: Any, show: Callable[[Image], object] | None) -> LivePreview | None:
        """One for whoever wants to see it; ``None`` where nobody does."""
        return None if show is None else cls(pipeline, show)

    def look(self) -> None:
        """Show a preview, unless the last one was too recent."""
        if self._expected is not None and time.monotonic() >= self._next:
            self._show(picture_of(self._pipeline, self._expected[:1]))
            self._next = time.monotonic() + SECONDS


def picture_of(pipeline: Any, latents: torch.Tensor) -> Image:
    """The first image of latents ``(1, channels, height, width)``: decoded where cheap, else by its
    colours.
    """
    from PIL import Image

    if type(pipeline.vae).__name__ == "AutoencoderTiny":
        scaled = (latents / pipeline.vae.config.scaling_factor).to(pipeline.vae.dtype)
        image: Image.Image = pipeline.image_processor.postprocess(
            pipeline.vae.decode(scaled).sample
        )[0]
        return image
    sdxl = getattr(pipeline, "text_encoder_2", None) is not None
    colours = torch.tensor(_COLOURS[sdxl])
    pixels = torch.einsum("chw,cr->hwr", latents[0, :4].float().cpu(), colours)
    return Image.fromarray(((pixels + 1) * 127.5).clamp(0, 255).to(torch.uint8).numpy())
