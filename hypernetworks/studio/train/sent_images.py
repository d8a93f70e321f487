"""Images that were dropped on the Train tab: their captions, which may be edited, and crops."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import FileWriteError, HypernetworkError
from ...files.naming import folded
from ...training.picture_settings import PictureSettings
from ...training.pictures import SUFFIXES, read_versions
from ...training.words import TEXT_SUFFIXES, read_caption, words_in_name
from ...ui.html import data_url, text

PER_PAGE = 12
"""Images on one page: each costs four components, whether it is there or not."""
MOST_CROPS = 4
"""Crops of one image that are shown; of more, these are spread as evenly."""


@dataclass(frozen=True)
class Sent:
    """One image.

    Attributes:
        path: of the file in gradio's cache.
        found: the caption of its file, or else of its name.
        caption: what the user has made of it.
        is_left_out: nothing is to be learned from it.
        file: the caption file that was sent with it, if any.
    """

    path: str
    found: str
    caption: str
    is_left_out: bool = False
    file: str | None = None

    @property
    def name(self) -> str:
        """Of the file."""
        return Path(self.path).name


def sent_images(files: Sequence[str], known: Sequence[Sent] = ()) -> list[Sent]:
    """The images among files that were sent, by name, with the captions among them.

    Args:
        known: those of before, whose captions may have been edited already.
    """
    before = {one.path: one for one in known}
    texts = {folded(Path(f).name): f for f in files if f.lower().endswith(TEXT_SUFFIXES)}
    pictures = sorted(
        (f for f in files if f.lower().endswith(SUFFIXES)), key=lambda f: Path(f).name
    )

    found = []
    for path in pictures:
        file = _caption_file(Path(path), texts)
        words = _caption(file) if file is not None else words_in_name(Path(path).stem)
        now = Sent(path, words, words, file=file)
        old = before.get(path)
        # A caption file may come after its image: it counts, unless the user has typed something.
        if old is not None:
            is_edited = old.caption != old.found
            now = replace(
                now, caption=old.caption if is_edited else words, is_left_out=old.is_left_out
            )
        found.append(now)
    return found


def on_page(images: Sequence[Sent], page: int) -> Sequence[Sent]:
    """The images of a page, the first of which is 0."""
    return images[page * PER_PAGE :][:PER_PAGE]


def page_near(count: int, page: int) -> int:
    """The page, or the nearest one that there is for so many images."""
    return min(max(page, 0), max(0, count - 1) // PER_PAGE)


def with_edits(images: list[Sent], page: int, *edited: Any) -> list[Sent]:
    """All images, those of the page with what their fields say."""
    captions, ticks = edited[:PER_PAGE], edited[PER_PAGE:]
    first = page * PER_PAGE

    changed = [
        replace(one, caption=caption or "", is_left_out=bool(tick))
        for one, caption, tick in zip(on_page(images, page), captions, ticks, strict=False)
    ]
    return [*images[:first], *changed, *images[first + PER_PAGE :]]


def _caption_file(picture: Path, texts: dict[str, str]) -> str | None:
    """The same order as :meth:`~hypernetworks.training.words.Beside.caption_file` has."""
    names = [stem + suffix for suffix in TEXT_SUFFIXES for stem in (picture.stem, picture.name)]
    return next((texts[folded(name)] for name in names if folded(name) in texts), None)


def _caption(file: str) -> str:
    try:
        return read_caption(Path(file)).strip()
    except HypernetworkError:  # keeping the files says what is wrong with it
        return ""


@contextmanager
def to_keep(files: Sequence[str], images: Sequence[Sent]) -> Iterator[list[str]]:
    """The files that are to be kept: without images that were left out, and with caption files as
    the user has edited them.

    Raises:
        FileWriteError: the edited captions can't be written.
    """
    used = [one for one in images if not one.is_left_out]
    edited = _edited(used)
    shared = {stem for stem, count in Counter(map(_stem, images)).items() if count > 1}

    left_out = {one.path for one in images if one.is_left_out}
    # A caption file of an image that stays may be that of another one, too.
    needed = {one.file for one in used if one not in edited}
    gone = left_out | ({one.file for one in images if one.file} - needed)

    with tempfile.TemporaryDirectory() as folder:
        written = []
        try:
            for one in edited:
                # ``a.txt`` would be the caption of a.png and of a.jpg.
                stem = one.name if _stem(one) in shared else Path(one.name).stem
                path = Path(folder) / f"{stem}.txt"
                path.write_text(one.caption.strip() + "\n", encoding="utf-8")
                written.append(str(path))
        except (OSError, UnicodeEncodeError) as error:
            raise FileWriteError(f"the captions can't be saved ({error})") from error
        yield [file for file in files if file not in gone] + written


def _stem(one: Sent) -> str:
    return folded(Path(one.name).stem)


def _edited(images: Sequence[Sent]) -> list[Sent]:
    """Those whose captions are to be written: what was edited, and what shares its file with one
    of these.
    """
    changed = {_stem(one) for one in images if one.caption.strip() != one.found}
    return [one for one in images if _stem(one) in changed]


@lru_cache(maxsize=512)
def thumbnail_html(path: str, settings: PictureSettings) -> str:
    """An image as the training will see it: cut to its size, each crop by itself."""
    try:
        # Read by the training's own code: what is shown is what is learned, turned by its EXIF
        # data, with a white background and so on.
        versions = read_versions(Path(path), replace(settings, flip=False))
    except HypernetworkError as error:
        return f'<p class="studio-messages studio-error">{text(error)}</p>'

    from PIL import Image

    found = ""
    for version in versions:
        pixels = ((version.pixels + 1) * 127.5).round().byte().permute(1, 2, 0)
        small = Image.fromarray(pixels.numpy())
        small.thumbnail((192, 192))
        found += f'<img src="{data_url(small)}" alt="{text(Path(path).name)}, cropped">'
    return f'<div class="studio-crops">{found}</div>'
