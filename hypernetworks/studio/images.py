"""The user's folder of generated images, by day; the page's gallery reads it again."""

from __future__ import annotations

import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import HypernetworkError
from ..files import moving
from ..files.writing import replace
from ..prompts import parse_infotext
from .kept import Kept
from .restoring import read_infotext

DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.png")
NAME = re.compile(rf"{DAY.pattern}/{_FILE.pattern}")
"""How the gallery names an image: nothing else of the disk can be meant by it."""
TRASH, STARS = "trash", "stars.txt"
MOST_SEARCHED = 5000
"""Images that are opened for one search, the newest first. What was read before costs nothing."""


@dataclass(frozen=True)
class Item:
    """An image of the gallery.

    Attributes:
        name: day and file, such as ``"2026-11-26/101500-seed-7.png"``.
    """

    name: str
    infotext: str
    is_starred: bool


class Images:
    """The folder, by day.

    Args:
        folder: made when the first image is kept.
        is_shown: whether the page may show what is in it; not where others can use the page.
    """

    def __init__(self, folder: Path, *, is_shown: bool = True) -> None:
        self.folder, self.is_shown = folder, is_shown
        self._infotexts: dict[str, str] = {}
        self._writing = threading.Lock()

    def keep(self, pictures: Sequence[Kept]) -> list[str]:
        """Copy finished images into today's folder.

        Returns:
            What to tell the user: that it was not possible, and why.
        """
        day = self.folder / time.strftime("%Y-%m-%d")

        try:
            day.mkdir(parents=True, exist_ok=True)
            with self._writing:
                for picture in pictures:
                    source = Path(picture.path)
                    # Two studios may share the folder: nothing that is there is replaced.
                    target = moving.free(
                        day / f"{time.strftime('%H%M%S')}-{source.name}", source.suffix
                    )
                    replace(target, partial(_copy, source))
        except (OSError, HypernetworkError) as error:
            reason = getattr(error, "strerror", None) or error
            return [f"the image is not saved in your folder of images ({reason}): download it"]
        return []

    def path(self, name: str) -> Path | None:
        """The file of an image of the gallery; ``None`` where there is none."""
        if not self.is_shown or not NAME.fullmatch(name):
            return None
        path = self.folder / name
        try:
            # A link could point anywhere, and the gallery is asked for names by the page.
            is_file = stat.S_ISREG(os.lstat(path).st_mode)
            is_inside = path.parent.resolve() == self.folder.resolve() / path.parent.name
        except (OSError, ValueError):
            return None
        return path if is_file and is_inside else None

    def items(
        self,
        words: str = "",
        *,
        starred: bool = False,
        after: str = "",
        on_end: Callable[[str], object] = lambda _: None,
    ) -> Iterator[Item]:
        """Images, the newest first.

        Args:
            words: that prompt and settings must have, all of them.
            starred: only those with a star.
            after: begin behind this name.
            on_end: called with the last name that was looked at, where older ones are left out
                because too many images would have to be opened.
        """
        wanted, stars = words.lower().split(), self.stars()
        opened, last = 0, ""

        for name in self._names():
            if (after and name >= after) or (starred and name not in stars):
                continue
            opened += name not in self._infotexts
            if opened > MOST_SEARCHED:
                on_end(last)
                return
            infotext, last = self.infotext(name), name
            if all(word in infotext.lower() for word in wanted):
                yield Item(name, infotext, name in stars)

    def _names(self) -> Iterator[str]:
        if not self.is_shown:
            return
        for day in _names_in(self.folder, DAY):
            for file in _names_in(self.folder / day, _FILE):
                yield f"{day}/{file}"

    def infotext(self, name: str) -> str:
        """The infotext of an image, or nothing."""
        # A search reads thousands of images; their infotexts never change.
        if name not in self._infotexts:
            path = self.path(name)
            found = ""
            if path is not None:
                with suppress(HypernetworkError):
                    found = read_infotext(path)
            self._infotexts[name] = found
        return self._infotexts[name]

    def stars(self) -> set[str]:
        """Names of the images that have a star."""
        try:
            text = (self.folder / STARS).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return set()
        return {line for line in text.splitlines() if NAME.fullmatch(line)}

    def star(self, name: str, is_starred: bool) -> None:
        """Give an image a star, or take it.

        Raises:
            HypernetworkError: there is no such image, or it can't be written.
        """
        self._found(name)
        with self._writing:
            # Read anew each time: another studio on the same folder may have changed them.
            stars = self.stars() | {name} if is_starred else self.stars() - {name}
            text = "".join(f"{one}\n" for one in sorted(stars))
            replace(
                self.folder / STARS, lambda temporary: temporary.write_text(text, encoding="utf-8")
            )

    def discard(self, name: str) -> None:
        """Move an image to the folder ``trash``, from where the user can take it back.

        Raises:
            HypernetworkError: there is no such image, or it can't be moved.
        """
        path = self._found(name)
        target = self.folder / TRASH / name

        try:
            with self._writing:
                target.parent.mkdir(parents=True, exist_ok=True)
                moving.move(path, moving.free(target, target.suffix))
        except OSError as error:
            raise HypernetworkError(
                f"the image can't be moved to {TRASH} ({error.strerror or error})"
            ) from error

    def _found(self, name: str) -> Path:
        path = self.path(name)
        if path is None:
            raise HypernetworkError("this image is not there any more: reload the page")
        return path


def described(item: Item) -> dict[str, Any]:
    """An image as the page reads it, with prompt and seed of its infotext."""
    prompt, _, pairs = parse_infotext(item.infotext)
    seed = pairs.get("Seed", "")
    return {
        "name": item.name,
        "infotext": item.infotext,
        "starred": item.is_starred,
        "prompt": prompt,
        "seed": seed if re.fullmatch(r"[0-9]{1,19}", seed) else None,
    }


def _copy(source: Path, temporary: Path) -> object:
    return shutil.copyfile(source, temporary)


def _names_in(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    try:
        # Names begin with day or time, so that their order is that of the images, newest first.
        return sorted(filter(pattern.fullmatch, os.listdir(folder)), reverse=True)
    except OSError:
        return []
