"""How images and their captions are prepared, and the sizes that they are brought to."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import TrainingSettingsError

FITS = ("crop", "buckets")


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
                f"the size {self.width}x{self.height} is not possible: use multiples of "
                f"{self.step}",
                setting="size",
            )


def bucket_of(width: int, height: int, settings: PictureSettings) -> tuple[int, int]:
    """The size that an image of this size is brought to."""
    if settings.fit == "crop":
        return settings.width, settings.height
    # 2:1 is as far from 1:1 as 1:2 is: distances of shapes are those of logarithms.
    aspect = math.log(width / height)
    return min(
        buckets(settings),
        key=lambda size: (abs(math.log(size[0] / size[1]) - aspect), -size[0] * size[1]),
    )


def buckets(settings: PictureSettings) -> list[tuple[int, int]]:
    """All sizes of nearly the settings' area, in multiples of its step, up to 1:2 and 2:1."""
    area, step = settings.width * settings.height, settings.step
    # Up to twice the area in width: 2:1 is the widest shape.
    widths = range(step, int(math.sqrt(2 * area)) + step, step)
    sizes = [(width, int(area / width) // step * step) for width in widths]
    return [(w, h) for w, h in sizes if h >= step and 0.5 <= w / h <= 2] or [
        (settings.width, settings.height)
    ]
