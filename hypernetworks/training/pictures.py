"""Gathered images -> examples: split into what is learned and what is kept for validation, and
encoded with their captions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from ..errors import TrainingDataError
from .captions import WORDS, Caption, read_template
from .examples import Example
from .gathering import SUFFIXES, Picture, as_picture, bad_pictures, find_pictures
from .picture_settings import FITS, PictureSettings, bucket_of, buckets
from .seeding import mixed
from .versions import Version, latent_weights, read_versions

__all__ = [
    "FITS",
    "SUFFIXES",
    "PictureSettings",
    "Version",
    "bucket_of",
    "buckets",
    "find_pictures",
    "latent_weights",
    "read_versions",
]

LEAST_SPLIT = 8
"""Images from which some are kept for the validation loss."""
Encode = Callable[[torch.Tensor], tuple[torch.Tensor, "torch.Tensor | None"]]
"""Pixels ``(batch, 3, height, width)`` in [-1, 1] -> means, and standard deviations if any, of
their latents.
"""


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
    # Copies under other names would tell the network what it is tested on.
    groups: dict[str, list[Picture | Path]] = {}
    for picture in pictures:
        groups.setdefault(_key(picture), []).append(picture)

    wanted = max(1, round(share * len(groups))) if share and len(groups) >= LEAST_SPLIT else 0
    known = earlier or {}
    kept = {key for key in groups if known.get(key)} if wanted else set[str]()
    fresh = (key for key in groups if key not in known)
    # By hash, so that adding images hardly changes which are kept.
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
        skipped: takes name and reason of each image that can't be read, in place of an error, be
            it all of them.

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

    if bad and skipped is None:
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
    # Several crops of one image share its caption, repeats and key.
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
