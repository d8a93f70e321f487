"""The folders of images -> what is learned from, with which words and how often, and what is left
out and why.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from ..errors import ImageError, TrainingDataError, printable
from ..files.images import check_image
from .sources import Source, sources_of
from .words import CLASS, FILE_NAME, NONE, TEXT_SUFFIXES, Beside, Words, read_words

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jfif",
    ".jpe",
    ".webp",
    ".bmp",
    ".dib",
    ".tif",
    ".tiff",
    ".gif",
    ".avif",
    ".apng",
)
"""Of images that Pillow reads by itself; ``.avif`` where it was built with it."""
MOST_NAMED = 10
"""Files that one message names."""
_KOHYA = re.compile(r"(\d{1,4})_(.+)")
"""A folder that says how often its images are learned per epoch, as kohya's trainer has them:
``10_name``.
"""
_JUNK = ("thumbs.db", "desktop.ini", "icon\r")
_CACHES = (".npz", ".safetensors", ".pt", ".log", ".csv", ".toml", ".yaml", ".md")


@dataclass(frozen=True)
class Picture:
    """One image to learn from.

    Attributes:
        path: of the file.
        words: its own words.
        repeats: how often it comes in an epoch.
        key: hash of the file's content; two files of one key are the same image.
        source: the folder that it is from, and what is different about that.
        mask: an image; what is black there is not learned.
    """

    path: Path
    words: Words
    repeats: int = 1
    key: str = ""
    source: Source | None = None
    mask: Path | None = None

    @property
    def weight(self) -> float:
        """Of its loss."""
        return 1.0 if self.source is None else self.source.weight

    @property
    def is_prior(self) -> bool:
        """Whether it shows what the model knew before."""
        return self.source is not None and self.source.is_prior


@dataclass
class Gathered:
    """What a run's folders hold.

    Attributes:
        pictures: what can be used, by folder and name.
        bad: name and reason of each image or caption that can't be used.
        left_out: sentences about files that nobody reads.
        notes: what else the user should know, such as captions that were read in another encoding.
    """

    pictures: list[Picture] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def check(self, *, skip_bad: bool = False) -> None:
        """Refuse images that can't be used, all of them at once; with ``skip_bad``, only say so.

        Raises:
            TrainingDataError: with their names and reasons.
        """
        if not self.bad:
            return
        if not skip_bad or not self.pictures:
            raise bad_pictures(self.bad, len(self.bad) + len(self.pictures))
        self.notes.append(f"left out, as they can't be used: {listed(self.bad)}")
        self.bad = []


def bad_pictures(bad: Sequence[tuple[str, str]], total: int) -> TrainingDataError:
    """The error that names all images that can't be used."""
    # One message for all of them: nobody wants to find bad images one start at a time.
    if len(bad) == 1:
        return TrainingDataError(
            f"{bad[0][0]}: {bad[0][1]}, or remove it; nothing is trained until then"
        )
    return TrainingDataError(
        f"{len(bad)} of {total} images can't be used, and nothing is trained until they are "
        f"repaired, removed or left out (`skip_bad`): {listed(bad)}"
    )


def listed(named: Sequence[tuple[str, str]]) -> str:
    """``a.png (damaged), b.png (empty) and 3 more``."""
    shown = ", ".join(f"{name} ({reason})" for name, reason in named[:MOST_NAMED])
    more = len(named) - MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def find_pictures(folder: Path) -> list[Path]:
    """The images that a folder, or its sub-folders named ``10_name``, hold, by name.

    Raises:
        TrainingDataError: no such folder, or no image in it.
    """
    return [path for part, _ in _parts(folder, Gathered()) for path in _images(part)]


def gather(folders: Sequence[Path | Source], repeats: Sequence[int] = ()) -> Gathered:
    """Find the images of folders, read their words, and look at every image's header.

    Args:
        folders: each with images in it, or with sub-folders named as kohya's trainer has them:
            ``10_name``.
        repeats: how often the images of each folder come in an epoch; none for once, or for what
            the sources say.

    Raises:
        TrainingDataError: no such folder, or no image in one.
        TrainingSettingsError: the repeats don't fit the folders.
    """
    paths = tuple(f.path if isinstance(f, Source) else f for f in folders)
    sources = [f if isinstance(f, Source) else Source(f) for f in folders]
    if repeats:
        sources = list(sources_of(paths, tuple(repeats)))

    found = Gathered()
    for source in sources:
        for part, own in _parts(source.path, found):
            _gather_part(part, own * source.repeats, found, source)
    _tell_duplicates(found)
    return found


def _parts(folder: Path, found: Gathered) -> list[tuple[Path, int]]:
    """The folders that hold the images, each with its repeats."""
    if not folder.is_dir():
        raise TrainingDataError(f"{folder}: there is no such folder of images")
    below = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    # Folders with both would mix two ways to say how often an image comes; kohya's counts.
    own, held = _images(folder), {path: len(_images(path)) for path in below}
    counted = [
        (path, int(match[1]))
        for path in below
        if held[path] and (match := _KOHYA.fullmatch(path.name)) and int(match[1])
    ]
    others = [path for path in below if held[path] and path not in dict(counted)]

    if counted and own:
        found.left_out.append(
            f"{_count(len(own))} in {folder.name} itself, as its sub-folders say how often "
            "theirs are repeated"
        )
    if others and (own or counted):
        names = ", ".join(f"{path.name} ({_count(held[path])})" for path in others[:MOST_NAMED])
        found.left_out.append(f"sub-folders, which are not searched: {names}")
    if counted:
        return counted
    if not own:
        raise _without_images(folder, others)
    return [(folder, 1)]


def _without_images(folder: Path, others: Sequence[Path]) -> TrainingDataError:
    advice = f"add some ({', '.join(SUFFIXES)})"
    if others:
        names = ", ".join(path.name for path in others[:MOST_NAMED])
        advice = (
            f"its sub-folders have some, so name those ({names}), or rename them to "
            f"1_{others[0].name} and so on"
        )
    elif nested := [path.name for path in sorted(folder.glob("*/[0-9]*_*")) if path.is_dir()]:
        advice = f"name the folder that has {nested[0]}"
    return TrainingDataError(f"{folder} has no images: {advice}")


def _images(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and _is_seen(p))
    except OSError as error:
        raise TrainingDataError(
            f"{folder}: it can't be read ({error.strerror or error}): check its permissions"
        ) from error


def _is_seen(path: Path) -> bool:
    """macOS puts ``._NAME`` beside images on foreign disks."""
    return not path.name.startswith(".") and path.is_file()


def _gather_part(folder: Path, repeats: int, found: Gathered, source: Source) -> None:
    beside, images = Beside(folder), _images(folder)
    used, masks = {path.name for path in images}, _masks(source)

    for path in images:
        try:
            words = read_words(path, beside)
            if source.words and words.source in (FILE_NAME, NONE):
                words = Words(source.words, (), CLASS)
            check_readable(path)
            # Hashed whole: copies, replaced and renamed images are told apart by it.
            content = path.read_bytes()
        except (ImageError, TrainingDataError) as error:
            found.bad.append((path.name, str(error)))
        except OSError as error:
            found.bad.append((path.name, f"it can't be read ({error.strerror or error})"))
        else:
            key, mask = sha256(content).hexdigest(), masks.get(path.stem.lower())
            found.pictures.append(Picture(path, words, repeats, key, source, mask))

    if source.masks is not None:
        _tell_without_masks(images, masks, found)
    _tell_left_out(folder, used | beside.used, found)
    _tell_captions(folder, found)


def _masks(source: Source) -> dict[str, Path]:
    """The masks of a folder's images by their stems.

    Raises:
        TrainingDataError: no such folder.
    """
    if source.masks is None:
        return {}
    if not source.masks.is_dir():
        raise TrainingDataError(f"{source.masks}: there is no such folder of masks")
    return {path.stem.lower(): path for path in _images(source.masks)}


def _tell_without_masks(images: Sequence[Path], masks: dict[str, Path], found: Gathered) -> None:
    without = [path.name for path in images if path.stem.lower() not in masks]
    if without:
        found.notes.append(
            f"{_count(len(without))} without a mask of the same name, learned as a whole: "
            f"{', '.join(without[:MOST_NAMED])}"
        )


def check_readable(path: Path) -> None:
    """Raises ImageError where the header is no image's, or one of a kind that this Pillow can't
    decode.
    """
    from PIL import features

    if check_image(path) == "AVIF" and not features.check("avif"):
        raise ImageError("this version of Pillow can't read AVIF: update Pillow, or save it as PNG")


def as_picture(path: Path) -> Picture:
    """An image by itself, as :func:`gather` would find it.

    Raises:
        TrainingDataError: its caption file can't be used.
    """
    return Picture(path, read_words(path))


def _tell_left_out(folder: Path, used: set[str], found: Gathered) -> None:
    """Files that are neither images, nor words of one, nor what systems and trainers put there by
    themselves.
    """
    names: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        suffix, is_ours = path.suffix.lower(), path.name in used
        # Files that systems and other trainers leave are no news.
        if is_ours or not _is_seen(path) or path.name.lower() in _JUNK or suffix in _CACHES:
            continue

        kind = (
            "captions without an image" if suffix in TEXT_SUFFIXES else "of a kind that is not read"
        )
        names.setdefault(kind, []).append(path.name)

    for kind, left in names.items():
        shown, more = ", ".join(map(printable, left[:MOST_NAMED])), len(left) - MOST_NAMED
        found.left_out.append(f"files {kind}: {shown}" + (f" and {more} more" if more > 0 else ""))


def _tell_captions(folder: Path, found: Gathered) -> None:
    here = [picture for picture in found.pictures if picture.path.parent == folder]
    noted = [p.words for p in here if p.words.note is not None]
    if noted:
        found.notes.append(
            f"{len(noted)} caption files were {noted[0].note}, such as {noted[0].file}: save "
            "them as UTF-8 if letters are wrong"
        )


def _tell_duplicates(found: Gathered) -> None:
    count = Counter(picture.key for picture in found.pictures)
    twice = [picture.path.name for picture in found.pictures if count[picture.key] > 1]
    if twice:
        kinds = sum(n > 1 for n in count.values())
        found.notes.append(
            f"{_count(kinds)} with copies under other names, which count each time: "
            f"{', '.join(twice[:MOST_NAMED])}"
        )


def _count(number: int) -> str:
    return f"{number} image{'' if number == 1 else 's'}"
