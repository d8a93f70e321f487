"""One generation as a record, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Hires:
    """The second pass of a job, which enlarges its images.

    Attributes:
        scale: of width and height.
        strength: how much of the image is made anew, above 0 and at most 1.
        upscaler: one of :data:`~hypernetworks.hosts.diffusers.passes.UPSCALERS`.
        steps: as many as the first pass where it is 0; of them, the fraction ``strength`` is run.
    """

    scale: float = 2.0
    strength: float = 0.7
    upscaler: str = "Latent"
    steps: int = 0

    def runs(self, first: int) -> int:
        """The steps that are run, after a first pass of so many."""
        return int((self.steps or first) * self.strength)


@dataclass(frozen=True)
class Generation:
    """All settings of one job.

    Attributes:
        prompt: as typed, tags included.
        negative: negative prompt.
        steps: sampling steps.
        cfg: classifier-free guidance scale; ``None`` is the model's own default.
        seed: of the first image; the others count up from it.
        batch: number of images.
        width, height: in pixels; ``None`` is the model's own size.
        sampler: a name of :data:`~hypernetworks.hosts.diffusers.samplers.SAMPLERS`; ``None`` is the
            model's own.
        image: a file to begin with in place of noise alone.
        strength: how much of that image is made anew, above 0 and at most 1.
        hires: the second pass, if there is one.
        block_off: a block of the UNet in which no network has an effect, such as ``"IN03"``.
    """

    prompt: str
    negative: str = ""
    steps: int = 20
    cfg: float | None = None
    seed: int = 0
    batch: int = 1
    width: int | None = None
    height: int | None = None
    sampler: str | None = None
    image: Path | None = None
    strength: float = 0.75
    hires: Hires | None = None
    block_off: str | None = None


@dataclass(frozen=True)
class Picture:
    """A finished image and the infotext that its PNG carries."""

    image: Image
    infotext: str


@dataclass
class Result:
    """The images of a job, and the messages for the user."""

    pictures: list[Picture] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def save_png(picture: Picture, path: Path) -> None:
    """Write a PNG with the infotext under ``parameters``, where webuis look for it; atomic.

    Raises:
        FileWriteError: it can't be written.
    """
    from PIL.PngImagePlugin import PngInfo

    from ...files.writing import replace

    metadata = PngInfo()
    metadata.add_text("parameters", picture.infotext)
    replace(path, lambda temporary: picture.image.save(temporary, format="PNG", pnginfo=metadata))
