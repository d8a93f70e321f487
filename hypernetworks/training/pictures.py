"""A folder of images -> pixels at the right sizes, in one or several versions, with alpha as loss
weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from ..errors import ImageError, TrainingDataError, TrainingSettingsError
from ..files.images import open_image
from .captions import WORDS, Caption, read_template
from .examples import Example
from .gathering import SUFFIXES, Picture, as_picture, bad_pictures, find_pictures
from .seeding import mixed

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SUFFIXES", "find_pictures"]

FITS = ("crop", "buckets")
LEAST_SPLIT = 8
"""Images from which some are kept for the validation loss."""
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
        caption_lines: whether each line of a caption file is a caption of its own; each sample
            draws one.
        prefix, suffix: put before and after every caption.
        trigger: a word that every caption begins with, unless it has it already; it is neither
            shuffled nor left out.
        keep_tokens: how many of the first tags stay in front.
        wildcards: whether ``{red|blue}`` in a caption means one of these.
        max_tokens: longest caption that is read; 0 is what the model reads at once. More are
            encoded in parts, as AUTOMATIC1111 does.
        clip_skip: as in AUTOMATIC1111; 1 is the text encoder's last layer.
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
    caption_lines: bool = False
    prefix: str = ""
    suffix: str = ""
    trigger: str = ""
    keep_tokens: int = 0
    wildcards: bool = False
    max_tokens: int = 0
    clip_skip: int = 1
    validation: float = 0.1

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise TrainingSettingsError(
                f'fit is "{self.fit}", use one of {", ".join(FITS)}', setting="fit"
            )
        if not 1 <= self.crops <= 64:
            raise TrainingSettingsError(
                f"crops is {self.crops}: it must be from 1 to 64", setting="crops"
            )

        for name, low, high in (
            ("clip_skip", 1, 12),
            ("max_tokens", 0, 1000),
            ("keep_tokens", 0, 1000),
        ):
            if not low <= getattr(self, name) <= high:
                raise TrainingSettingsError(
                    f"{name} is {getattr(self, name)!r}: it must be from {low} to {high}",
                    setting=name,
                )

        for name in ("tag_dropout", "validation"):
            if not 0 <= getattr(self, name) < 1:
                raise TrainingSettingsError(
                    f"{name} is {getattr(self, name)!r}: it must be in [0, 1)", setting=name
                )

        if (
            min(self.width, self.height) < self.step
            or self.width % self.step
            or self.height % self.step
        ):
            raise TrainingSettingsError(
                f"the size {self.width}x{self.height} is not possible: use multiples of {self.step}",
                setting="size",
            )


@dataclass(frozen=True)
class Version:
    """One crop of an image, mirrored or not.

    Attributes:
        pixels: ``(3, height, width)`` in [-1, 1].
        alpha: opacity ``(height, width)`` in [0, 1], where it weighs the loss and is not 1
            throughout.
        frame: height and width of the whole image, and top and left of the crop in the scaled one,
            which SDXL is told.
    """

    pixels: torch.Tensor
    alpha: torch.Tensor | None
    frame: tuple[int, int, int, int] = (0, 0, 0, 0)


def split_validation(
    pictures: Sequence[Picture | Path],
    share: float,
    seed: int,
    earlier: Mapping[str, bool] | None = None,
) -> tuple[list[Any], list[Any]]:
    """Images to learn from, and those kept for the validation loss, by content and seed alone.

    Images of the same content stay together. What an earlier part of the run has learned from is
    never kept for validation afterwards, whatever was added or removed since, nor the other way
    round.

    Args:
        earlier: by key, whether the image was kept in an earlier part of the run.
    """
    groups: dict[str, list[Picture | Path]] = {}
    for picture in pictures:
        groups.setdefault(_key(picture), []).append(picture)

    wanted = max(1, round(share * len(groups))) if share and len(groups) >= LEAST_SPLIT else 0
    known = earlier or {}
    kept = {key for key in groups if known.get(key)} if wanted else set[str]()
    fresh = (key for key in groups if key not in known)
    ranked = sorted(fresh, key=lambda key: (mixed("held out", seed, key), key))
    kept.update(ranked[: max(0, wanted - len(kept))])
    return [p for p in pictures if _key(p) not in kept], [p for p in pictures if _key(p) in kept]


def _key(picture: Picture | Path) -> str:
    """Of its content; of its name where there is none."""
    if isinstance(picture, Path):
        try:
            return sha256(picture.read_bytes()).hexdigest()
        except OSError:
            return picture.name
    return picture.key or picture.path.name


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
    if has_alpha and not settings.alpha:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    if mask is not None:
        image.putalpha(_read_mask(mask, image.size))
    crops = _crops(image, settings)
    found = [v for crop, frame in crops if (v := _version(crop, frame)) is not None]
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
    from PIL.Image import Resampling

    try:
        with open_image(path) as file:
            grey = _eight_bit(ImageOps.exif_transpose(file)).convert("L")
    except ImageError as error:
        raise TrainingDataError(f"the mask {path.name}: {error}") from ImageError(
            f"its mask: {error}"
        )
    return grey if grey.size == size else grey.resize(size, Resampling.LANCZOS)


def _crops(
    image: Image, settings: PictureSettings
) -> Iterator[tuple[Image, tuple[int, int, int, int]]]:
    """The image scaled to cover its bucket, cut at evenly spread places, the middle when there is
    one crop; and its frame, see :class:`Version`.
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
        frame = (image.height, image.width, top, left)
        yield scaled.crop((left, top, left + width, top + height)), frame


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


def _version(image: Image, frame: tuple[int, int, int, int]) -> Version | None:
    """Its pixels and weights; ``None`` where nothing of it is opaque."""
    numbers = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    pixels, alpha = numbers[:3] / 127.5 - 1, numbers[3] / 255 if len(numbers) == 4 else None
    if alpha is not None and not alpha.any():
        return None
    return Version(pixels, None if alpha is None or bool((alpha == 1).all()) else alpha, frame)


def latent_weights(alpha: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Loss weights ``(1, height, width)`` of mean 1, from opacity ``(pixels high, pixels wide)``.

    AUTOMATIC1111 subtracts the smallest opacity first, which makes opaque images 0/0, and turns the
    mask on its side where an image is not square; this does neither.
    """
    weights = functional.adaptive_avg_pool2d(alpha[None], (height, width))
    return weights / weights.mean()


def load_examples(
    pictures: Sequence[Picture | Path],
    settings: PictureSettings,
    encode: Encode,
    *,
    name: str = "",
    report: Callable[[int, int], object] | None = None,
    skipped: list[tuple[str, str]] | None = None,
) -> list[Example]:
    """Read and encode images, with their captions.

    Args:
        encode: the autoencoder; what it gives is kept, where it gives it.
        name: stands for ``[name]`` in templates.
        report: called with (done, total) images; what it raises ends the reading.
        skipped: takes name and reason of each image that can't be read, in place of an error.

    Raises:
        TrainingDataError: images, captions or the template can't be used; all of the images are
            named.
    """
    templates, found = read_template(settings.template), list[Example]()
    bad: list[tuple[str, str]] = [] if skipped is None else skipped
    for number, item in enumerate(pictures):
        picture = as_picture(item) if isinstance(item, Path) else item
        own = settings_for(picture, settings)
        try:
            versions = read_versions(picture.path, own, picture.mask)
        except TrainingDataError as error:
            bad.append((picture.path.name, str(error.__cause__ or error)))
        else:
            lines = templates if own is settings else read_template(own.template)
            caption = caption_of(picture, lines, own, name)
            found.append(_example(picture, caption, versions, own, encode))
        if report is not None:
            report(number + 1, len(pictures))

    if bad and (skipped is None or not found):
        raise bad_pictures(bad, len(pictures))
    return found


def settings_for(picture: Picture, settings: PictureSettings) -> PictureSettings:
    """The settings with what the image's folder has of its own."""
    if picture.source is None or not (picture.source.changes or picture.is_prior):
        return settings
    changes: dict[str, Any] = dict(picture.source.changes)
    if picture.is_prior:  # it is no image of what is learned, so it doesn't get its name
        changes = {"trigger": "", "template": WORDS} | changes
    return replace(settings, **changes)


def caption_of(
    picture: Picture, templates: tuple[str, ...], settings: PictureSettings, name: str
) -> Caption:
    """All that may be said of an image, by the settings."""
    words, others = picture.words.text, tuple[str, ...]()
    if settings.caption_lines and picture.words.lines:
        words, *rest = picture.words.lines
        others = tuple(rest)
    keep, trigger = settings.keep_tokens, settings.trigger
    if trigger:
        words, *rest = (_with_trigger(trigger, text) for text in (words, *others))
        others, keep = tuple(rest), max(1, keep)
    return Caption(
        templates,
        words,
        name,
        settings.shuffle,
        settings.tag_dropout,
        others,
        keep,
        settings.wildcards,
        settings.prefix,
        settings.suffix,
    )


def _with_trigger(trigger: str, words: str) -> str:
    """The words with the trigger word in front; moved there where they have it as a tag."""
    tags = [tag for tag in words.split(",") if tag.strip() and tag.strip() != trigger]
    return ", ".join([trigger, *(tag.strip() for tag in tags)])


def _example(
    picture: Picture,
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
    if picture.weight != 1 or any(version.alpha is not None for version in versions):
        weights = tuple(
            picture.weight * _weights_of(v, m) for v, m in zip(versions, means, strict=True)
        )
    spread = tuple(d for d in deviations if d is not None) if settings.spread else ()
    return Example(
        picture.path.name,
        caption,
        tuple(means),
        spread if len(spread) == len(means) else None,
        weights,
        picture.repeats,
        picture.key,
        tuple(version.frame for version in versions),
    )


def _weights_of(version: Version, latents: torch.Tensor) -> torch.Tensor:
    height, width = latents.shape[1:]
    if version.alpha is None:
        return torch.ones(1, height, width, device=latents.device)
    return latent_weights(version.alpha, height, width).to(latents.device)
