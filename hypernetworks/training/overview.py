"""What a run is about to learn, in sentences: images, sizes, captions by source, tags, steps; and
what it will miss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..errors import ImageError, printable
from ..files.images import open_image
from .gathering import MOST_NAMED, Picture
from .pictures import PictureSettings, bucket_of
from .settings import TrainingSettings
from .words import NONE

EPOCHS = 150
"""How often each image is learned from by default."""
MOST_LOST = 0.3
"""Share of an image that may be cropped away without a word."""


def samples_per_image(pictures: Sequence[Picture]) -> float:
    """Samples in which each image comes once on average.

    Repeats say how often images come in comparison with others, so they add none where all have the
    same. Prior images come besides, as often as their repeats say, but are none to learn.
    """
    own = _own(pictures)
    repeated = sum(picture.repeats for picture in own)
    return len(own) * sum(picture.repeats for picture in pictures) / max(1, repeated)


def steps_for(samples: float, samples_per_step: int, usual: int, epochs: int = EPOCHS) -> int:
    """Steps by the number of images: so many epochs, from a quarter to four times the usual number
    of steps.

    Args:
        samples: in which each image comes once, see :func:`samples_per_image`.
    """
    # Few images are overfitted in few steps, and many need more; the bounds keep both sane.
    steps = round(samples * epochs / samples_per_step)
    return max(1, usual // 4, min(steps, 4 * usual))


def overview(
    pictures: Sequence[Picture],
    validation: Sequence[Picture],
    settings: PictureSettings,
    run: TrainingSettings,
) -> list[str]:
    """Sentences about what is learned."""
    samples = sum(picture.repeats for picture in pictures)
    repeated = f" ({samples:,} with repeats)" if samples != len(pictures) else ""
    kept = f", {len(validation)} kept for validation" if validation else ""
    epochs = run.steps * run.samples_per_step / max(1, samples_per_image(pictures))
    times = _times(epochs, _which(pictures))

    lines = [
        f"{_counted(len(pictures), 'image')} to learn from{repeated}{kept}",
        f"{_counted(run.steps, 'step')} of {run.samples_per_step}: {times}",
        _captions([*pictures, *validation]),
    ]

    sizes = Counter(_bucket(picture, settings) for picture in pictures)
    if settings.fit == "buckets":
        lines.append("sizes: " + ", ".join(f"{size} ({n})" for size, n in sizes.most_common(12)))

    tags = Counter(tag.strip() for p in pictures for tag in p.words.text.split(",") if tag.strip())
    common = [(tag, n) for tag, n in tags.most_common(10) if n > 1]
    if common:
        lines.append("tags: " + ", ".join(f"{printable(tag, 30)} ({n})" for tag, n in common))
    return lines


def _captions(pictures: Sequence[Picture]) -> str:
    counts = Counter(picture.words.source for picture in pictures)
    lines = sum(bool(picture.words.lines) for picture in pictures)
    parts = [f"{count} from {source}" for source, count in counts.most_common() if source != NONE]
    if counts[NONE]:
        parts.append(f"{counts[NONE]} images have none, or a camera's name")
    if lines:
        parts.append(f"{lines} with several lines")
    return "captions: " + ", ".join(parts)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _own(pictures: Sequence[Picture]) -> Sequence[Picture]:
    """Those that are new to the model; all where there are no others."""
    return [picture for picture in pictures if not picture.is_prior] or pictures


def _which(pictures: Sequence[Picture]) -> str:
    """Which images come how often, where it isn't the same for all."""
    own = _own(pictures)
    which = "each image" if len(own) == len(pictures) else "each image outside `prior`"
    differ = len({picture.repeats for picture in own}) > 1
    return f"{which}, on average," if differ else which


def _times(epochs: float, which: str = "each image") -> str:
    """How often each image comes."""
    if epochs < 0.95:
        return f"only about {epochs:.0%} of the images are used"
    count = round(epochs)
    return f"{which} about {count:,} times" if count > 1 else f"{which} about once"


def cropped(pictures: Sequence[Picture], settings: PictureSettings) -> list[str]:
    """A sentence about images that lose much of their area, if there are any; worst first."""
    # Several crops are spread over the image, so hardly anything is lost.
    if settings.crops > 1:  # which are spread over the whole image
        return []

    lost = sorted(
        ((_lost(picture, settings), picture) for picture in pictures), key=lambda p: -p[0]
    )
    named = [f"{picture.path.name} ({share:.0%})" for share, picture in lost if share > MOST_LOST]
    if not named:
        return []

    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    advice = "several crops keep more (`crops` 3)"
    if settings.fit == "crop":
        advice = f"buckets keep more (`fit`), and {advice}"
    return [
        f"much of these images is cropped away: {', '.join(named[:MOST_NAMED])}{more}; {advice}"
    ]


def _lost(picture: Picture, settings: PictureSettings) -> float:
    """Share of an image's area that isn't learned; 0 where it can't be told."""
    size = _size(picture)
    if size is None:
        return 0.0
    width, height = bucket_of(*size, settings)
    scale = max(width / size[0], height / size[1])
    return max(0.0, 1 - width * height / (size[0] * size[1] * scale**2))


def _bucket(picture: Picture, settings: PictureSettings) -> str:
    size = _size(picture)
    return "unknown" if size is None else "x".join(map(str, bucket_of(*size, settings)))


def _size(picture: Picture) -> tuple[int, int] | None:
    """Width and height as they are seen, from the header alone."""
    try:
        with open_image(picture.path) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except ImageError:
        return None
