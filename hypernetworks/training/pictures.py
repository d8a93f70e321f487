"""A folder of images -> pixels at the right sizes, in one or several versions, with alpha as loss
weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from ..errors import ImageError, TrainingDataError, TrainingSettingsError
from ..files.images import open_image
from .captions import Caption, read_template, words_of
from .examples import Example
from .seeding import mixed

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FITS = ("crop", "buckets")
Encode = Callable[[torch.Tensor], tuple[torch.Tensor, "torch.Tensor | None"]]
"""Pixels ``(batch, 3, height, width)`` in [-1, 1] -> means, and standard deviations if any, of
their latents.
"""


@dataclass(frozen=True)
class PictureSettings:
    """How images and their captions are prepared.

    Attributes:
        width, height: in pixels; with buckets, their product is the largest area.
        fit: ``"crop"``: all to one size; ``"buckets"``: each to the nearest of several shapes of
            the same area.
        step: pixel sizes of buckets are multiples of it.
        crops: versions of each image, evenly spread over what doesn't fit.
        flip: whether each version is mirrored as well.
        alpha: whether transparency weighs the loss: what is transparent is not learned.
        spread: whether latents are drawn anew from the autoencoder's distribution each time.
        template: a line, or the path of a text file of lines; see :mod:`.captions`.
        shuffle, tag_dropout: see :class:`~.captions.Caption`.
        validation: share of the images that is kept for the validation loss, if there are eight or
            more.
    """

    width: int = 512
    height: int = 512
    fit: str = "crop"
    step: int = 64
    crops: int = 1
    flip: bool = False
    alpha: bool = False
    spread: bool = False
    template: str = "[filewords]"
    shuffle: bool = False
    tag_dropout: float = 0.0
    validation: float = 0.1

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise TrainingSettingsError(f'fit is "{self.fit}", use one of {", ".join(FITS)}')
        if not 1 <= self.crops <= 64:
            raise TrainingSettingsError(f"crops is {self.crops}: it must be from 1 to 64")

        for name in ("tag_dropout", "validation"):
            if not 0 <= getattr(self, name) < 1:
                raise TrainingSettingsError(
                    f"{name} is {getattr(self, name)!r}: it must be in [0, 1)"
                )

        if (
            min(self.width, self.height) < self.step
            or self.width % self.step
            or self.height % self.step
        ):
            raise TrainingSettingsError(
                f"the size {self.width}x{self.height} is not possible: use multiples of {self.step}"
            )


@dataclass(frozen=True)
class Version:
    """One crop of an image, mirrored or not.

    Attributes:
        pixels: ``(3, height, width)`` in [-1, 1].
        alpha: opacity ``(height, width)`` in [0, 1], where it weighs the loss and is not 1
            throughout.
    """

    pixels: torch.Tensor
    alpha: torch.Tensor | None


def find_pictures(folder: Path) -> list[Path]:
    """The images in a folder, by name.

    Raises:
        TrainingDataError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise TrainingDataError(f"{folder}: there is no such folder of images")
    found = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and _is_seen(path)
    )
    if not found:
        raise TrainingDataError(f"{folder} has no images: add some ({', '.join(SUFFIXES)})")
    return found


def _is_seen(path: Path) -> bool:
    return (
        not path.name.startswith(".") and path.is_file()
    )  # macOS puts ._NAME beside images on foreign disks


def split_validation(
    pictures: Sequence[Path], share: float, seed: int
) -> tuple[list[Path], list[Path]]:
    """Images to learn from, and those kept for the validation loss, by name and seed alone."""
    count = max(1, round(share * len(pictures))) if share and len(pictures) >= 8 else 0
    ranked = sorted(pictures, key=lambda path: (mixed("held out", seed, path.name), path.name))
    kept = set(ranked[:count])
    return [path for path in pictures if path not in kept], [
        path for path in pictures if path in kept
    ]


def bucket_of(width: int, height: int, settings: PictureSettings) -> tuple[int, int]:
    """The size that an image of this size is brought to."""
    if settings.fit == "crop":
        return settings.width, settings.height
    aspect = math.log(width / height)
    return min(
        buckets(settings),
        key=lambda size: (abs(math.log(size[0] / size[1]) - aspect), -size[0] * size[1]),
    )


def buckets(settings: PictureSettings) -> list[tuple[int, int]]:
    """All sizes of nearly the settings' area, in multiples of its step, up to 1:2 and 2:1."""
    area, step = settings.width * settings.height, settings.step
    widths = range(step, int(math.sqrt(2 * area)) + step, step)
    sizes = [(width, int(area / width) // step * step) for width in widths]
    return [(w, h) for w, h in sizes if h >= step and 0.5 <= w / h <= 2] or [
        (settings.width, settings.height)
    ]


def read_versions(path: Path, settings: PictureSettings) -> list[Version]:
    """All versions of one image.

    Raises:
        TrainingDataError: it can't be read, or is wholly transparent where alpha counts.
    """
    from PIL import Image, ImageOps

    try:
        with open_image(path) as file:
            image = _eight_bit(ImageOps.exif_transpose(file))
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            image = image.convert("RGBA" if has_alpha else "RGB")
    except ImageError as error:
        raise TrainingDataError(f"{path.name}: {error}, or remove it") from error
    if has_alpha and not settings.alpha:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    found = [version for crop in _crops(image, settings) if (version := _version(crop)) is not None]
    if not found:
        raise TrainingDataError(
            f"{path.name} is completely transparent, so nothing would be learned from it: remove it"
        )
    if settings.flip:
        found += [
            Version(v.pixels.flip(-1), None if v.alpha is None else v.alpha.flip(-1)) for v in found
        ]
    return found


def _crops(image: Image, settings: PictureSettings) -> Iterator[Image]:
    """The image scaled to cover its bucket, cut at evenly spread places; the middle when there is
    one crop.
    """
    from PIL.Image import Resampling

    width, height = bucket_of(*image.size, settings)
    scale = max(width / image.width, height / image.height)
    covering = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    scaled = image if covering == image.size else image.resize(covering, Resampling.LANCZOS)
    spare = (covering[0] - width, covering[1] - height)
    places = (
        [0.5] if settings.crops == 1 else [i / (settings.crops - 1) for i in range(settings.crops)]
    )
    corners = dict.fromkeys((round(spare[0] * place), round(spare[1] * place)) for place in places)
    for left, top in corners:
        yield scaled.crop((left, top, left + width, top + height))


def _eight_bit(image: Image) -> Image:
    """A grey image of 16-bit numbers, or of fractions, in 8 bits; Pillow itself would make it white
    or black.

    Raises:
        ValueError: what its numbers mean can't be told.
    """
    from PIL import Image as Pictures

    if not image.mode.startswith(("I", "F")):
        return image
    numbers = np.asarray(image, dtype=np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    if image.mode == "F":
        factor = 255.0 if high <= 1 else 1.0
    else:
        factor = 1 / 257 if image.mode.startswith("I;") or high > 255 else 1.0
    if not (low >= 0 and high * factor <= 255):
        raise ValueError(f"grey from {low:g} to {high:g}")
    return Pictures.fromarray(np.rint(numbers * factor).astype(np.uint8))


def _version(image: Image) -> Version | None:
    """Its pixels and weights; ``None`` where nothing of it is opaque."""
    numbers = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    pixels, alpha = numbers[:3] / 127.5 - 1, numbers[3] / 255 if len(numbers) == 4 else None
    if alpha is not None and not alpha.any():
        return None
    return Version(pixels, None if alpha is None or bool((alpha == 1).all()) else alpha)


def latent_weights(alpha: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Loss weights ``(1, height, width)`` of mean 1, from opacity ``(pixels high, pixels wide)``.

    AUTOMATIC1111 subtracts the smallest opacity first, which makes opaque images 0/0, and turns the
    mask on its side where an image is not square; this does neither.
    """
    weights = functional.adaptive_avg_pool2d(alpha[None], (height, width))
    return weights / weights.mean()


def load_examples(
    paths: Sequence[Path],
    settings: PictureSettings,
    encode: Encode,
    *,
    name: str = "",
    report: Callable[[int, int], object] | None = None,
) -> list[Example]:
    """Read and encode images, with their captions.

    Args:
        encode: the autoencoder; what it gives is kept, where it gives it.
        name: stands for ``[name]`` in templates.
        report: called with (done, total) images.

    Raises:
        TrainingDataError: an image, its caption or the template can't be used.
    """
    templates, found = read_template(settings.template), []
    for number, path in enumerate(paths):
        versions = read_versions(path, settings)
        caption = Caption(templates, words_of(path), name, settings.shuffle, settings.tag_dropout)
        found.append(_example(path.name, caption, versions, settings, encode))
        if report is not None:
            report(number + 1, len(paths))

    return found


def _example(
    name: str,
    caption: Caption,
    versions: Sequence[Version],
    settings: PictureSettings,
    encode: Encode,
) -> Example:
    means, deviations = [], []
    for version in versions:  # one by one: an autoencoder needs much memory per image
        mean, deviation = encode(version.pixels[None])
        means.append(mean[0].float())
        deviations.append(None if deviation is None else deviation[0].float())

    weights = None
    if any(version.alpha is not None for version in versions):
        weights = tuple(_weights_of(v, m) for v, m in zip(versions, means, strict=True))
    spread = tuple(d for d in deviations if d is not None) if settings.spread else ()
    return Example(
        name, caption, tuple(means), spread if len(spread) == len(means) else None, weights
    )


def _weights_of(version: Version, latents: torch.Tensor) -> torch.Tensor:
    height, width = latents.shape[1:]
    if version.alpha is None:
        return torch.ones(1, height, width, device=latents.device)
    return latent_weights(version.alpha, height, width).to(latents.device)
