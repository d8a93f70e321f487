"""A folder to learn from, with what is different about its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from ..errors import TrainingSettingsError

CHANGES = (
    "flip",
    "alpha",
    "crops",
    "template",
    "shuffle",
    "tag_dropout",
    "caption_lines",
    "prefix",
    "suffix",
    "trigger",
    "keep_tokens",
    "wildcards",
)
"""Settings of images and captions that a folder may have of its own."""
MOST_REPEATS = 10_000


@dataclass(frozen=True)
class Source:
    """One folder of images.

    Attributes:
        path: a folder with images in it, or with sub-folders named as kohya's trainer has them:
            ``10_name``.
        repeats: how often its images come in an epoch.
        weight: of their losses, 1 for as much as others.
        masks: a folder of images of the same names; what is black there is not learned.
        words: for images without a caption, such as the words of their class.
        is_prior: whether they show what the model knew before and shall keep (prior preservation):
            they are never kept for validation, and get no trigger word.
        changes: settings of :data:`CHANGES`, by name, in place of the run's.
    """

    path: Path
    repeats: int = 1
    weight: float = 1.0
    masks: Path | None = None
    words: str = ""
    is_prior: bool = False
    changes: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.repeats <= MOST_REPEATS:
            raise TrainingSettingsError(
                f"repeats must be from 1 to {MOST_REPEATS:,}", setting="repeats"
            )
        if not 0 < self.weight <= 100:
            raise TrainingSettingsError(
                f"weights must be above 0 and at most 100, not {self.weight:g}", setting="weights"
            )
        if unknown := sorted(set(self.changes) - set(CHANGES)):
            raise TrainingSettingsError(
                f"a folder can't have {unknown[0]} of its own, only {', '.join(CHANGES)}"
            )


SOURCE_FIELDS = tuple(f.name for f in fields(Source) if f.name != "changes")
"""What a folder is described by besides :data:`CHANGES`."""


def sources_of(
    folders: tuple[Path, ...],
    repeats: tuple[int, ...] = (),
    weights: tuple[float, ...] = (),
    masks: Path | None = None,
) -> tuple[Source, ...]:
    """Folders with a repeat and a weight each, and one folder of masks for all.

    Raises:
        TrainingSettingsError: their numbers don't fit the folders.
    """
    return with_numbers(tuple(map(Source, folders)), repeats, weights, masks)


def with_numbers(
    sources: Sequence[Source],
    repeats: Sequence[int] = (),
    weights: Sequence[float] = (),
    masks: Path | None = None,
) -> tuple[Source, ...]:
    """Sources with other repeats, weights and masks, where there are any; prior ones keep theirs.

    Raises:
        TrainingSettingsError: the numbers don't fit the sources.
    """
    own = [number for number, source in enumerate(sources) if not source.is_prior]
    for name, given in (("repeats", repeats), ("weights", weights)):
        if given and len(given) != len(own):
            aside = ", those of `prior` aside," if len(own) < len(sources) else ""
            raise TrainingSettingsError(
                f"there are {len(own)} folders{aside} but {len(given)} {name}: give one number "
                "for each folder",
                setting=name,
            )

    found = list(sources)
    for place, number in enumerate(own):
        source = found[number]
        found[number] = replace(
            source,
            repeats=repeats[place] if repeats else source.repeats,
            weight=weights[place] if weights else source.weight,
            masks=masks or source.masks,
        )
    return tuple(found)
