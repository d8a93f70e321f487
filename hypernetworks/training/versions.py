"""One image file -> pixels at the right size, in one or several versions, with alpha as loss
weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from ..errors import ImageError, TrainingDataError
from ..files.images import open_image
from .picture_settings import PictureSettings, bucket_of

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Version:
    """One crop of an image, mirrored or not.

    Attributes:
        pixels: ``(3, height, width)`` in [-1, 1]; white where the image is transparent.
        alpha: opacity ``(height, width)`` in [0, 1], where it weighs the loss and is not 1
            throughout.
        frame: height and width of the whole image, and top and left of the crop in the scaled one,
            which SDXL is told.
    """

    pixels: torch.Tensor
    alpha: torch.Tensor | None
    frame: tuple[int, int, int, int] = (0, 0, 0, 0)


def read_versions(path: Path, settings: PictureSettings, mask: Path | None = None) -> list[Version]:
    """All versions of one image.

    Args:
        mask: a grey image; what is black there is not learned, in place of transparency.

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
        raise TrainingDataError(f"{path.name}: {error}, or remove it") from ImageError(str(error))
    weights = image.getchannel("A") if has_alpha and settings.alpha else None
    if mask is not None:
        weights = _read_mask(mask, image.size)
    if has_alpha:
        # What a webui shows behind transparent images, too; what is there in the file is anything.
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    crops = _crops(image, weights, settings)
    found = [v for crop in crops if (v := _version(*crop)) is not None]
    if not found:
        raise TrainingDataError(
            f"{path.name} is completely transparent, so nothing would be learned from it: remove it"
        )
    if settings.flip:
        found += [
            Version(v.pixels.flip(-1), None if v.alpha is None else v.alpha.flip(-1), v.frame)
            for v in found
        ]
    return found


def _read_mask(path: Path, size: tuple[int, int]) -> Image:
    """A mask in grey, of this size."""
    from PIL import ImageOps

    try:
        with open_image(path) as file:
            grey = _eight_bit(ImageOps.exif_transpose(file)).convert("L")
    except ImageError as error:
        raise TrainingDataError(f"the mask {path.name}: {error}") from ImageError(
            f"its mask: {error}"
        )
    return _resized(grey, size)


def _crops(
    image: Image, weights: Image | None, settings: PictureSettings
) -> Iterator[tuple[Image, Image | None, tuple[int, int, int, int]]]:
    """The image scaled to cover its bucket, cut at evenly spread places, the middle when there is
    one crop; its weights likewise; and its frame, see :class:`Version`.
    """
    width, height = bucket_of(*image.size, settings)
    # Cover, then cut: squeezing would teach wrong proportions.
    scale = max(width / image.width, height / image.height)
    covering = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    # Each by itself: Pillow makes colours black where the alpha of the same image is 0.
    scaled = _resized(image, covering)
    scaled_weights = None if weights is None else _resized(weights, covering)

    spare = (covering[0] - width, covering[1] - height)
    places = (
        [0.5] if settings.crops == 1 else [i / (settings.crops - 1) for i in range(settings.crops)]
    )
    corners = dict.fromkeys((round(spare[0] * place), round(spare[1] * place)) for place in places)
    for left, top in corners:
        frame, box = (image.height, image.width, top, left), (left, top, left + width, top + height)
        cut = None if scaled_weights is None else scaled_weights.crop(box)
        yield scaled.crop(box), cut, frame


def _resized(image: Image, size: tuple[int, int]) -> Image:
    from PIL.Image import Resampling

    return image if image.size == size else image.resize(size, Resampling.LANCZOS)


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


def _version(
    image: Image, weights: Image | None, frame: tuple[int, int, int, int]
) -> Version | None:
    """Its pixels and weights; ``None`` where nothing of it is opaque."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
    if weights is None:
        return Version(pixels, None, frame)

    alpha = torch.from_numpy(np.array(weights)).float() / 255
    # A crop of nothing but transparency has no mean weight to divide by.
    if not alpha.any():
        return None
    return Version(pixels, None if bool((alpha == 1).all()) else alpha, frame)


def latent_weights(alpha: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Loss weights ``(1, height, width)`` of mean 1, from opacity ``(pixels high, pixels wide)``.

    AUTOMATIC1111 subtracts the smallest opacity first, which makes opaque images 0/0, and turns the
    mask on its side where an image is not square; this does neither.
    """
    weights = functional.adaptive_avg_pool2d(alpha[None], (height, width))
    return weights / weights.mean()
