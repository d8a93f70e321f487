"""Folders that training on the page may use: images to choose from, uploaded images, and runs."""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..errors import FileWriteError, ImageError, TrainingDataError
from ..files.images import open_image
from ..files.moving import free, move
from ..files.naming import DEVICE, folded, is_plain, is_text
from .creation import check_name
from .gathering import SUFFIXES
from .words import TEXT_SUFFIXES, read_caption

DEEPEST, MOST_FOLDERS = 3, 500
"""How far below an allowed folder, and how many folders, are looked at for pictures."""
MOST_FILES = 5000
LARGEST_TEXT = 1 << 16
"""Bytes of a caption."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
SENDING = ".sending-"
"""Begins the names of folders that are being filled."""
ABANDONED = 24 * 3600
"""Seconds after which such a folder belongs to nobody: the studio was killed meanwhile."""


@dataclass(frozen=True)
class TrainingFolders:
    """The only folders that the Train tab reads and writes, besides the library.

    Attributes:
        own: keeps ``pictures`` (what was sent to the page) and ``runs``; made when it is first
            needed.
        sources: folders of the user whose pictures may be learned from. They are only read.
    """

    own: Path
    sources: tuple[Path, ...] = ()

    @property
    def runs(self) -> Path:
        """Where runs are kept, each in a folder of its own."""
        return self.own / "runs"

    @property
    def pictures(self) -> Path:
        """The folder for uploaded images."""
        return self.own / "pictures"

    def choices(self) -> list[tuple[str, str]]:
        """Folders with images, as (label, key); a key is not a path that a page could change."""
        found = []
        for number, root in enumerate((self.pictures, *self.sources)):
            for folder, count in _with_pictures(root):
                relative = folder.relative_to(root).as_posix()
                shown = (
                    root.name
                    if relative == "."
                    else f"{root.name}/{relative}"
                    if number
                    else relative
                )
                found.append(
                    (
                        f"{shown} ({count} image{'' if count == 1 else 's'})",
                        f"{number}:{relative}",
                    )
                )

        return found

    def folder(self, key: str) -> Path:
        """The folder of a key.

        Raises:
            TrainingDataError: it is none of :meth:`choices`.
        """
        if key not in {known for _, known in self.choices()}:
            raise TrainingDataError(
                "this folder of images is not available any more: choose one from the list"
            )
        number, _, relative = key.partition(":")
        return (self.pictures, *self.sources)[int(number)] / relative

    def key(self, folder: Path) -> str:
        """The key of a folder of uploaded images."""
        return f"0:{folder.relative_to(self.pictures).as_posix()}"

    def keep(self, files: Sequence[str], name: str) -> Path:
        """Copy uploaded images and captions into a new folder, if they are valid.

        Raises:
            TrainingDataError: one of them isn't, or there is no picture; nothing is left behind.
            FileWriteError: they can't be kept.
        """
        check_name(name)
        sources = [Path(file) for file in files]
        if len(sources) > MOST_FILES:
            raise TrainingDataError(
                f"{len(sources)} files at once are too many: add at most {MOST_FILES}"
            )

        for source in sources:
            _check_file(source)
        sources = _without_repeated(sources)
        if not any(source.suffix.lower() in SUFFIXES for source in sources):
            raise TrainingDataError(
                f"there is no image among the files: add some ({', '.join(SUFFIXES)})"
            )

        try:
            self.pictures.mkdir(parents=True, exist_ok=True)
            self._tidy()
            with tempfile.TemporaryDirectory(prefix=SENDING, dir=self.pictures) as temporary:
                made = Path(temporary) / "made"
                made.mkdir()
                for source in sources:
                    shutil.copyfile(source, made / source.name)
                target = free(self.pictures / name)
                move(made, target)
                return target
        except OSError as error:
            raise FileWriteError(
                f"the images can't be saved in {self.pictures} ({error.strerror or error})"
            ) from error

    def _tidy(self) -> None:
        for folder in self.pictures.glob(f"{SENDING}*"):
            if folder.lstat().st_mtime < time.time() - ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


def _with_pictures(root: Path) -> Iterator[tuple[Path, int]]:
    """Folders at or below ``root`` that hold pictures, and how many; hidden ones, links, and names
    that are no valid text are passed over.
    """
    for here, below, files in islice(os.walk(root), MOST_FOLDERS):
        folder = Path(here)
        depth = len(folder.relative_to(root).parts)
        below[:] = (
            sorted(name for name in below if not name.startswith(".") and is_text(name))
            if depth < DEEPEST
            else []
        )
        count = sum(name.lower().endswith(SUFFIXES) for name in files)
        if count:
            yield folder, count


def _without_repeated(sources: Sequence[Path]) -> list[Path]:
    """The files, each once.

    Raises:
        TrainingDataError: different files of one name; one of them would be lost, or get the
            other's caption.
    """
    found: dict[str, Path] = {}
    for source in sources:
        known = found.setdefault(folded(source.name), source)
        if known is not source and not filecmp.cmp(known, source, shallow=False):
            raise TrainingDataError(
                f"two different files are called {source.name} (ignoring case): rename one of them"
            )

    return list(found.values())


def _check_file(source: Path) -> None:
    """Raises TrainingDataError unless it is an image or a short text under a plain name."""
    name, suffix = source.name, source.suffix.lower()
    if not is_plain(name) or not name.isprintable() or len(name.encode()) > 200:
        raise TrainingDataError(
            "a file name can't contain slashes, start with a dot or be very long: rename the "
            "file, then add it"
        )
    if DEVICE.fullmatch(name):
        raise TrainingDataError(
            f"{name} is a reserved device name on Windows: rename the file, then add it"
        )
    if suffix in TEXT_SUFFIXES:
        _check_text(source)
    elif suffix in SUFFIXES:
        _check_picture(source)
    else:
        raise TrainingDataError(
            f"{name} is neither an image ({', '.join(SUFFIXES)}) nor a caption "
            f"({', '.join(TEXT_SUFFIXES)})"
        )


def _check_text(source: Path) -> None:
    try:
        if source.stat().st_size > LARGEST_TEXT:
            raise TrainingDataError(
                f"{source.name} is too long for a caption: shorten it to less than 64 kB"
            )
    except OSError as error:
        raise TrainingDataError(f"{source.name} can't be read: add it again") from error
    read_caption(source)


def _check_picture(source: Path) -> None:
    try:
        with open_image(source, FORMATS) as picture:
            picture.verify()
    except ImageError as error:
        raise TrainingDataError(f"{source.name}: {error}, or leave it out") from error
