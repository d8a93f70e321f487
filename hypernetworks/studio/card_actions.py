"""What the menu of a card does to the files of a network."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import FileError, FileWriteError, HypernetworkError, sendable
from ..files import SUFFIXES, moving
from ..files.naming import folded
from ..files.writing import replace
from ..library import Entry, Library
from ..library.sidecars import PREVIEW_SUFFIXES, write_user_metadata
from .cards import MOST_TAGS, TAGS, checked_name

LONGEST_TAG = 60
TRASH = ".trash"
"""In the folder of the library: hidden, so that the library does not read it."""
MOST_PIXELS, PREVIEW_SIDE = 64_000_000, 768
_BESIDE = (".json", ".civitai.info", ".txt", ".description.txt")
FOR_OTHERS = ("tags", "preview")
"""What is allowed on a page that other machines can use."""


class CardActions:
    """Changes files of the library; names that come from a page are looked up in it.

    Args:
        shipped: the folder of the included networks, which stay as they are.
        anywhere: the page is open to other machines, which may do little.
    """

    def __init__(self, library: Library, shipped: Path, *, anywhere: bool = False) -> None:
        self._library, self._shipped, self._anywhere = library, shipped, anywhere

    def do(self, action: str, name: str, text: str, body: bytes) -> dict[str, Any]:
        """Do one of ``tags``, ``preview``, ``rename``, ``discard`` and ``reveal``.

        Raises:
            HypernetworkError: it can't be done, and why.
        """
        if self._anywhere and action not in FOR_OTHERS:
            raise HypernetworkError("with --listen, files can't be changed or shown from the page")
        # A name, never a path: what a page sends can mean nothing outside the library.
        entry = self._library.find(name, suggest=False)
        if action == "reveal":
            return open_folder(entry.path.parent)
        if entry.path.is_relative_to(self._shipped):
            raise HypernetworkError(f'"{entry.name}" is included with the studio: copy it first')

        try:
            if action == "tags":
                return set_tags(entry, text)
            if action == "preview":
                return set_preview(entry, body)
            return self._rename(entry, text) if action == "rename" else self._discard(entry)
        except OSError as error:
            if isinstance(error, HypernetworkError):
                raise
            raise FileWriteError(f"it can't be done ({error.strerror or error})") from error

    def _rename(self, entry: Entry, to: str) -> dict[str, Any]:
        if not to.strip():
            raise FileError("the new name is empty: type one")
        target = entry.path.with_name(checked_name(f"{to.strip()}{entry.path.suffix}"))
        # Tags could not tell ink.pt from ink.safetensors, which would share what is beside them.
        same = [path for path in _same_stem(target) if path != entry.path]
        moves = [
            (path, path.with_name(target.stem + path.name.removeprefix(entry.path.stem)))
            for path in _belonging(entry)
        ]
        taken = [new for path, new in [*moves, (entry.path, target)] if _is_other(new, path)]
        if same or taken:
            raise FileWriteError(f"{(same or taken)[0].name} exists already: choose another name")

        # The network last: where a move fails half-way, tags still find it under its old name.
        for path, new in [*moves, (entry.path, target)]:
            moving.move(path, new)
        self._library.scan()
        return {"name": target.stem}

    def _discard(self, entry: Entry) -> dict[str, Any]:
        root = next(f for f in self._library.folders if entry.path.is_relative_to(f))
        # In the same folder of the library, so that it is a rename and never a copy of gigabytes.
        trash = root / TRASH
        trash.mkdir(exist_ok=True)
        for path in [*_belonging(entry), entry.path]:
            moving.move(path, moving.free(trash / path.name, path.suffix))
        self._library.scan()
        return {"folder": sendable(str(trash))}


def open_folder(folder: Path) -> dict[str, Any]:
    """Show a folder in the system's own window.

    Raises:
        HypernetworkError: nothing on this machine does.
    """
    try:
        if sys.platform == "win32":
            os.startfile(folder)
        else:
            opener = "open" if sys.platform == "darwin" else "xdg-open"
            subprocess.Popen([opener, str(folder)], start_new_session=True)
    except OSError as error:
        raise HypernetworkError(f"no program opens {folder}: open it yourself") from error
    return {"folder": sendable(str(folder))}


def set_tags(entry: Entry, text: str) -> dict[str, Any]:
    """Store tags, separated by commas, in ``NAME.json``."""
    words = (" ".join(word.split())[:LONGEST_TAG] for word in text.split(","))
    tags = list(dict.fromkeys(word for word in words if word))[:MOST_TAGS]
    write_user_metadata(entry, {TAGS: tags or None})
    return {"tags": tags}


def set_preview(entry: Entry, body: bytes) -> dict[str, Any]:
    """Store an image as ``NAME.preview.png``; nothing but its pixels gets to the disk.

    Raises:
        FileError: it is no image.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(body), formats=("PNG", "JPEG", "WEBP")) as sent:
            if sent.width * sent.height > MOST_PIXELS:
                raise FileError("the image is too large for a preview")
            image = sent.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, HypernetworkError):
            raise
        raise FileError("this is not a PNG, JPEG or WebP image") from error

    # Saved anew from its pixels: an infotext or a place in it would go wherever the file goes.
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    path = entry.path.with_name(f"{entry.path.stem}.preview.png")
    replace(path, lambda temporary: image.save(temporary, "PNG"))
    return {"preview": path.name}


def _is_other(path: Path, than: Path) -> bool:
    """Whether there is another file at a path."""
    # On Windows and macOS, Ink.pt and ink.pt are one file, and may change their case.
    return path.exists() and not path.samefile(than)


def _same_stem(path: Path) -> list[Path]:
    """The networks of a folder that share a file's name but for the suffix, itself included."""
    return [
        other
        for other in path.parent.glob("*")
        if folded(other.stem) == folded(path.stem) and other.suffix.lower() in SUFFIXES
    ]


def _belonging(entry: Entry) -> Iterator[Path]:
    """The files beside a network that are only its own."""
    stem = entry.path.stem
    if len(_same_stem(entry.path)) > 1:  # ink.pt and ink.safetensors share them
        return

    images = [f"{middle}.{suffix}" for middle in (".preview", "") for suffix in PREVIEW_SUFFIXES]
    for ending in (*_BESIDE, *images):
        path = entry.path.with_name(f"{stem}{ending}")
        if path.is_file():
            yield path
