"""diffusers as a host: from a prompt with tags to images, on the miniature or on a user's
checkpoint.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...devices import PRECISIONS, default_dtype, empty_cache, enough_memory, is_out_of_memory
from ...errors import CheckpointError, HypernetworkError
from ...files.naming import model_name
from ...library import Entry, Library
from ...patching import Handle, Site, apply_at, find_sites
from ...prompts import Tag, format_infotext, parse
from ...prompts.near_misses import near_misses
from ..fit import check_fit
from ..infotext import HASHES, hashes_line
from ..resolving import Resolver, Use
from .checkpoints.loading import load_checkpoint, load_vae
from .finite import Finite, NotFiniteError, watched
from .generation import Generation, Picture, Result
from .live_preview import LivePreview
from .passes import Passes, check_passes, hires_size
from .reading import unread
from .samplers import build_sampler, check_steps, sampler_name

if TYPE_CHECKING:
    from PIL.Image import Image

MINIATURE = Path(__file__).parents[2] / "miniature" / "weights"
"""The small model that ships, as a diffusers folder."""
PRECISION_NAMES = {dtype: name for name, dtype in PRECISIONS.items()}
NOT_FINITE = (
    "the image has values that are not finite (NaN or infinite) and is black there: the "
    "checkpoint or a network may be damaged, or a multiplier too strong"
)
MINIATURE_NETWORKS = Path(__file__).parents[2] / "miniature" / "networks"
"""The style networks that ship with it."""


class Painter:
    """A loaded model with a library of hypernetworks.

    Args:
        checkpoint: a ``.safetensors`` file or diffusers folder; ``None`` is the miniature.
        library: where tags look for their networks.
        device: such as ``"cpu"`` or ``"cuda"``.
        prediction: ``"epsilon"`` or ``"v_prediction"``, in place of what the checkpoint says.
        half: whether to use 16 bits per number; ``None`` means on every device but the CPU.
        precision: ``"fp32"``, ``"fp16"`` or ``"bf16"``; ``"auto"`` goes by ``half``.
        vae: a file or folder in place of the model's own VAE.

    Raises:
        CheckpointError: the checkpoint can't be used.
    """

    def __init__(
        self,
        checkpoint: Path | None,
        library: Library,
        *,
        device: str = "cpu",
        prediction: str | None = None,
        half: bool | None = None,
        precision: str = "auto",
        vae: Path | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.is_miniature = checkpoint is None
        self.model_name = "miniature" if checkpoint is None else model_name(checkpoint)
        if half is not None and precision == "auto":
            precision = "fp16" if half else "fp32"
        self.dtype = dtype = default_dtype(device, precision)

        if checkpoint is None and not (MINIATURE / "model_index.json").exists():
            raise CheckpointError(
                "the miniature's weights are missing: build them, or name a checkpoint"
            )

        loaded: Any = load_checkpoint(checkpoint or MINIATURE, dtype=dtype, prediction=prediction)
        self.vae = vae
        if vae is not None:
            loaded.register_modules(vae=load_vae(vae, loaded.vae, dtype))
        self.pipeline: Any = loaded.to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.library = library
        self._own_scheduler: Any = self.pipeline.scheduler

    @property
    def default_cfg(self) -> float:
        """Guidance that suits the model."""
        return 3.0 if self.is_miniature else 7.0

    @property
    def default_sampler(self) -> str:
        """The model's own sampler, as webuis call it."""
        return sampler_name(self._own_scheduler)

    @property
    def default_size(self) -> int:
        """Width and height that the model was made for, in pixels."""
        return int(self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor)

    @property
    def size_step(self) -> int:
        """Width and height must be multiples of this."""
        return int(
            self.pipeline.vae_scale_factor
            * 2 ** (len(self.pipeline.unet.config.block_out_channels) - 1)
        )

    def generate(
        self,
        job: Generation,
        on_step: Callable[[int, int], bool | None] | None = None,
        on_picture: Callable[[Image], object] | None = None,
        *,
        keep_precision: bool = False,
    ) -> Result:
        """Generate the images of a job.

        An unusable tag adds a message; the image is still generated.

        Args:
            on_step: called with (finished steps, all steps) after each step; ``False`` stops the
                job.
            on_picture: called with the live preview, a few times per second at most.
            keep_precision: an image that isn't finite is not tried again in fp32, for which the
                whole model is converted; for a model that something else uses as it is.

        Raises:
            HypernetworkError: the job itself is not possible, such as a size that the model can't
                make.
        """
        result = Result()
        clean, negative, tags = self._prompts(job, result.messages)
        sites = find_sites(self.pipeline.unet) if tags else []
        chosen = self._resolve(tags, sites, result.messages)
        size = self._size(job)
        check_steps(job.sampler, self._own_scheduler, job.steps)
        check_passes(job, size, self.size_step)
        steps = _Steps(on_step)

        # In half precision an image may overflow that fp32 computes well: worth a second attempt.
        again = self.dtype != torch.float32 and not keep_precision

        def attempt(again: bool) -> list[Image]:
            with ExitStack() as patches:
                here = [site for site in sites if site.block is None or site.block != job.block_off]
                handle = self._apply(chosen, here, patches, result.messages)
                self.pipeline.scheduler = build_sampler(job.sampler, self._own_scheduler)
                patches.callback(setattr, self.pipeline, "scheduler", self._own_scheduler)
                live_preview = LivePreview.watching(self.pipeline, on_picture)
                finite = patches.enter_context(watched(self.pipeline.vae, raises=again))
                passes = self._passes(job, size, handle, live_preview, steps, finite)
                images = passes.images(clean, negative)

            if finite.found:
                result.messages.append(NOT_FINITE)
            return images

        with enough_memory(lambda: self._less_memory(job, size), self.pipeline.device):
            try:
                images = attempt(again)
            except NotFiniteError:
                images = self._in_wider_numbers(lambda: attempt(False), result.messages)

        result.pictures = self._pictures(job, images, size, chosen, steps.interruption)
        self.library.trim()
        return result

    def _passes(
        self,
        job: Generation,
        size: tuple[int, int],
        handle: Handle | None,
        live_preview: LivePreview | None,
        steps: _Steps,
        finite: Finite,
    ) -> Passes:
        return Passes(
            self.pipeline,
            job,
            size=size,
            cfg=self.default_cfg if job.cfg is None else job.cfg,
            multiple=self.size_step,
            handle=handle,
            live_preview=live_preview,
            on_step=steps,
            finite=finite,
        )

    def problems(self, prompt: str) -> list[str]:
        """Why tags of a prompt can't be used with this model; a line for each, nothing is
        generated.
        """
        messages: list[str] = []
        self._resolve(parse(prompt)[1], find_sites(self.pipeline.unet), messages)
        return messages

    def _prompts(self, job: Generation, messages: list[str]) -> tuple[str, str, list[Tag]]:
        """Prompt and negative prompt without tags, and the prompt's tags; messages about the
        rest.
        """
        clean, tags = parse(job.prompt)
        negative, misplaced = parse(job.negative)

        messages += [
            f"{tag} has no effect in the negative prompt: move it to the prompt"
            for tag in misplaced
        ]
        messages += near_misses(clean, loras=False)
        messages += near_misses(negative, loras=False, negative=True)
        messages += unread(self.pipeline, clean, negative)
        return clean, negative, tags

    def _in_wider_numbers(
        self, attempt: Callable[[], list[Image]], messages: list[str]
    ) -> list[Image]:
        """Try again in fp32; in bf16, which reaches as far in half the memory, where fp32 does not
        fit.
        """
        before = self.dtype
        try:
            self._convert(torch.float32)
            images = attempt()
        except RuntimeError as error:
            if before != torch.float16 or not is_out_of_memory(error):
                raise
            # The frames hold what the attempt had computed so far.
            traceback.clear_frames(error.__traceback__)
            self._convert(torch.bfloat16)
            images = attempt()

        was, now = (PRECISION_NAMES[dtype] for dtype in (before, self.dtype))
        messages.insert(
            0,
            f"the image had values that are not finite in {was}, so the model now runs in {now}: "
            f"choose that precision from the start (--precision {now})",
        )
        return images

    def _convert(self, dtype: torch.dtype) -> None:
        """Convert the whole model permanently; where that fails, it is as before."""
        try:
            self.pipeline.to(dtype)
        except BaseException:
            self.pipeline.to(self.dtype)
            raise
        finally:
            empty_cache(self.pipeline.device)
        self.dtype = dtype

    def _less_memory(self, job: Generation, size: tuple[int, int]) -> str:
        """What to change after a job for which there was not enough memory."""
        advice = "generate fewer or smaller images"
        if self.dtype == torch.float32:
            advice += ", or use half precision (--precision fp16)"
        if job.hires is not None:
            size = hires_size(size, job.hires, self.size_step)
        return f"for {job.batch} x {size[0]}x{size[1]}: {advice}"

    def _resolve(
        self, tags: Sequence[Tag], sites: Sequence[Site], messages: list[str]
    ) -> list[Use]:
        """Networks of the tags that can be used; a message for each that can't."""
        resolver = Resolver(
            self.library,
            lambda network, multiplier: check_fit(network, multiplier, sites),
            messages.append,
            on_found=self.library.hashes.start,  # the infotext needs it when the image is there
        )
        return resolver.uses(tags)

    def _apply(
        self,
        chosen: Sequence[Use],
        sites: Sequence[Site],
        patches: ExitStack,
        messages: list[str],
    ) -> Handle | None:
        if not chosen:
            return None

        def give_up(error: Exception) -> None:
            traceback.print_exception(type(error), error, error.__traceback__)
            failed = f"applying the networks failed ({type(error).__name__}: {error})"
            messages.append(f"{failed}; the image is generated without hypernetworks")

        networks = [(use.network, use.multiplier) for use in chosen]
        handle = apply_at(self.pipeline.unet, sites, [networks], on_error=give_up)
        return patches.enter_context(handle)

    def _size(self, job: Generation) -> tuple[int, int]:
        width, height, multiple = (
            job.width or self.default_size,
            job.height or self.default_size,
            self.size_step,
        )
        if (
            width % multiple
            or height % multiple
            or not multiple <= min(width, height) <= max(width, height) <= 4096
        ):
            raise HypernetworkError(
                f"the size {width}x{height} is not possible: use multiples of {multiple} up to 4096"
            )

        return width, height

    def _pictures(
        self,
        job: Generation,
        images: Sequence[Image],
        size: tuple[int, int],
        chosen: Sequence[Use],
        interruption: str | None,
    ) -> list[Picture]:
        entries = [use.entry for use in chosen]
        return [
            Picture(image, self._infotext(job, job.seed + i, size, entries, interruption))
            for i, image in enumerate(images)
        ]

    def _infotext(
        self,
        job: Generation,
        seed: int,
        size: tuple[int, int],
        entries: Sequence[Entry],
        interruption: str | None = None,
    ) -> str:
        pairs: dict[str, object] = {
            "Steps": job.steps,
            "Sampler": job.sampler or self.default_sampler,
            "CFG scale": self.default_cfg if job.cfg is None else job.cfg,
            "Seed": seed,
            "Size": f"{size[0]}x{size[1]}",
            "Model": self.model_name,
        }
        if self.vae is not None:
            pairs["VAE"] = self.vae.name
        pairs.update(_of_passes(job))
        hashes = hashes_line(self.library, entries, lambda e: self.library.hashes.sha256(e)[:10])
        if hashes:
            pairs[HASHES] = hashes
        if job.block_off is not None:
            pairs["Hypernetworks not in block"] = job.block_off
        if interruption is not None:
            pairs["Interrupted after"] = interruption

        return format_infotext(job.prompt, job.negative, pairs)


def _of_passes(job: Generation) -> dict[str, object]:
    """Pairs of the infotext, as webuis write them."""
    if job.hires is None:
        return {} if job.image is None else {"Denoising strength": job.strength}
    steps = {"Hires steps": job.hires.steps} if job.hires.steps else {}
    return {
        "Denoising strength": job.hires.strength,
        "Hires upscale": job.hires.scale,
        **steps,
        "Hires upscaler": job.hires.upscaler,
    }


class _Steps:
    """Passes the steps of a job on, and remembers how far it came."""

    def __init__(self, on_step: Callable[[int, int], bool | None] | None) -> None:
        self._on_step, self._done, self._total = on_step, 0, 0

    def __call__(self, done: int, total: int) -> bool | None:
        self._done, self._total = done, total
        return None if self._on_step is None else self._on_step(done, total)

    @property
    def interruption(self) -> str | None:
        """After which step the job was stopped, such as ``"5 of 20 steps"``; ``None``: it
        wasn't.
        """
        is_short = self._done < self._total
        return f"{self._done} of {self._total} steps" if is_short else None
