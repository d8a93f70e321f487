"""The passes of one job: from noise or from an image, and the hires pass, which enlarges images."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import HypernetworkError
from ...files.images import open_image
from ..steps import position
from .generation import Generation, Hires
from .prompt_encoding import conditions

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...patching import Handle
    from .finite import Finite
    from .live_preview import LivePreview

LATENT = {
    "Latent": "bilinear",
    "Latent (bicubic)": "bicubic",
    "Latent (nearest-exact)": "nearest-exact",
}
"""Ways to enlarge latents, by webuis' names."""
PIXELS = {"Lanczos": "LANCZOS", "Nearest": "NEAREST"}
"""Ways to enlarge the decoded image, by webuis' names."""
UPSCALERS = (*LATENT, *PIXELS)


def hires_size(size: tuple[int, int], hires: Hires, multiple: int) -> tuple[int, int]:
    """Width and height after the hires pass, in pixels, as multiples of what the model can do."""
    width, height = (max(1, round(edge * hires.scale / multiple)) * multiple for edge in size)
    return width, height


def check_passes(job: Generation, size: tuple[int, int], multiple: int) -> None:
    """Check, before the work, what only the passes after the first noise would notice.

    Raises:
        HypernetworkError: with what to change.
    """
    if job.image is not None:
        _check_strength(job.strength, job.steps, "the strength")
    hires = job.hires
    if hires is None:
        return

    if job.image is not None:
        raise HypernetworkError("hires enlarges new images only: remove the image, or turn it off")
    if hires.upscaler not in UPSCALERS:
        raise HypernetworkError(
            f'there is no upscaler "{hires.upscaler}": use one of {", ".join(UPSCALERS)}'
        )
    _check_strength(hires.strength, hires.steps or job.steps, "the strength of hires")
    larger = hires_size(size, hires, multiple)
    if max(larger) > 4096:
        raise HypernetworkError(
            f"hires would make {larger[0]}x{larger[1]}: choose a smaller scale, 4096 is the most"
        )


def _check_strength(strength: float, steps: int, what: str) -> None:
    if not 0 < strength <= 1 or int(steps * strength) < 1:
        raise HypernetworkError(
            f"{what} is {strength:g}, which leaves no step of {steps}: choose at least "
            f"{1 / steps:.2g}, at most 1"
        )


def read_image(path: Path, size: tuple[int, int]) -> Image:
    """An image to begin with, scaled and cropped to a size around its middle; transparency on
    white.

    Raises:
        ImageError: it can't be read.
    """
    from PIL import Image, ImageOps

    with open_image(path) as opened:
        whole = ImageOps.exif_transpose(opened).convert("RGBA")
    paper = Image.new("RGBA", whole.size, "white")
    paper.alpha_composite(whole)
    return ImageOps.fit(paper.convert("RGB"), size, Image.Resampling.LANCZOS)


def from_image(pipeline: Any) -> Any:
    """The pipeline for image to image, with the same parts; no weight is copied."""
    name = type(pipeline).__name__.replace("Pipeline", "Img2ImgPipeline")
    kind = getattr(importlib.import_module("diffusers"), name)
    known = inspect.signature(kind.__init__).parameters
    parts = {key: part for key, part in pipeline.components.items() if key in known}
    options = {"requires_safety_checker": False, "add_watermarker": False}
    made = kind(**parts, **{key: value for key, value in options.items() if key in known})
    made.set_progress_bar_config(disable=True)
    return made


def _beginning_with(latents: torch.Tensor, scheduler: Any) -> Callable[..., torch.Tensor]:
    """In place of a pipeline's ``prepare_latents``, which encodes an image, and knows latents by
    their four channels only.
    """
    from diffusers.utils.torch_utils import randn_tensor

    def prepare(
        _image: Any,
        timestep: torch.Tensor,
        _batch: int,
        _per_prompt: int,
        dtype: torch.dtype,
        device: torch.device,
        generator: Any = None,
        *_more: Any,
    ) -> torch.Tensor:
        begun = latents.to(device, dtype)
        noise = randn_tensor(begun.shape, generator=generator, device=device, dtype=dtype)
        noisy: torch.Tensor = scheduler.add_noise(begun, noise, timestep)
        return noisy

    return prepare


class Passes:
    """Runs one job on a pipeline that is ready for it.

    Args:
        size: width and height of the first pass.
        cfg: guidance scale.
        multiple: width and height of the hires pass are multiples of this.
        handle: of the networks, which is told each step.
        on_step: called with finished and all steps, over both passes; ``False`` stops.
    """

    def __init__(
        self,
        pipeline: Any,
        job: Generation,
        *,
        size: tuple[int, int],
        cfg: float,
        multiple: int,
        handle: Handle | None,
        live_preview: LivePreview | None,
        on_step: Callable[[int, int], bool | None],
        finite: Finite,
    ) -> None:
        self._pipeline, self._job, self._size = pipeline, job, size
        self._cfg, self._multiple = cfg, multiple
        self._handle, self._live_preview = handle, live_preview
        self._on_step, self._finite = on_step, finite
        self._latents: torch.Tensor | None = None
        self._done, self._stopped = 0, False

    def images(self, prompt: str, negative: str) -> list[Image]:
        """The images; those of the first pass where the job was stopped in it."""
        job = self._job
        with torch.inference_mode():
            given: dict[str, Any] = conditions(self._pipeline, prompt, negative).arguments()
            if job.image is None:
                width, height = self._size
                images = self._run(self._pipeline, job.steps, **given, width=width, height=height)
            else:
                image = read_image(job.image, self._size)
                given.update(image=image, strength=job.strength)
                images = self._run(from_image(self._pipeline), job.steps, **given)

            if job.hires is not None and not self._stopped:
                images = self._enlarged(images, job.hires, given)
        return images

    def _enlarged(self, images: list[Image], hires: Hires, given: dict[str, Any]) -> list[Image]:
        larger = hires_size(self._size, hires, self._multiple)
        steps = hires.steps or self._job.steps
        pipeline = from_image(self._pipeline)

        if hires.upscaler in LATENT and self._latents is not None:
            factor = self._pipeline.vae_scale_factor
            enlarged = torch.nn.functional.interpolate(
                self._latents.float(),
                (larger[1] // factor, larger[0] // factor),
                mode=LATENT[hires.upscaler],
            )
            pipeline.prepare_latents = _beginning_with(enlarged, pipeline.scheduler)

        begun = [image.resize(larger, _resampling(hires)) for image in images]
        return self._run(
            pipeline, steps, is_hires=True, **given, image=begun, strength=hires.strength
        )

    def _run(
        self, pipeline: Any, steps: int, *, is_hires: bool = False, **arguments: Any
    ) -> list[Image]:
        """One pass. Each image has a generator of its own: its noise is that of a batch of one."""
        if self._handle is not None:
            # An image to begin with may leave fewer steps: before the first, that is no matter.
            self._handle.at(0, steps, hires=is_hires)
        before, job = self._done, self._job
        hires = None if is_hires else job.hires
        after = 0 if hires is None else hires.runs(job.steps)

        def after_step(
            pipeline: Any, index: int, _time: object, tensors: dict[str, Any]
        ) -> dict[str, Any]:
            if index == 0 and self._finite.raises:  # no need to go on to the end
                self._finite.check(tensors["latents"])
            self._latents, runs = tensors["latents"], pipeline.num_timesteps
            if self._handle is not None:
                at = position(pipeline.scheduler, index + 1, runs)
                self._handle.at(*at, hires=is_hires)
            if self._live_preview is not None:
                self._live_preview.look()
            self._done = before + index + 1
            if self._on_step(self._done, before + runs + after) is False:
                pipeline._interrupt = self._stopped = True
            return tensors

        output = pipeline(
            **arguments,
            num_inference_steps=steps,
            guidance_scale=self._cfg,
            num_images_per_prompt=job.batch,
            generator=[torch.Generator("cpu").manual_seed(job.seed + i) for i in range(job.batch)],
            callback_on_step_end=after_step,
        )
        images: list[Image] = output.images
        return images


def _resampling(hires: Hires) -> Any:
    from PIL import Image

    return Image.Resampling[PIXELS.get(hires.upscaler, "LANCZOS")]
