"""The library as the page's cards show it, and how a file is added to it."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import FileError, FileWriteError, HypernetworkError
from ..files import SUFFIXES, read
from ..files.moving import move_to_free, remove
from ..files.naming import DEVICE, folded, is_plain
from ..library import Entry, Library, inspect
from ..library.sidecars import FolderNames, Listings, Sidecars, for_the_panel, read_sidecars

_BINARY = getattr(os, "O_BINARY", 0)
TAGS, MOST_TAGS = "tags", 50
"""Key of ``NAME.json``: a list of words, as the webui extension writes it."""
LARGEST = 4 << 30
"""Bytes of a file that may be added."""


def own_folder(library: Library, shipped: Path) -> Path | None:
    """The first folder of the library that is the user's, which is where new files go."""
    return next((folder for folder in library.folders if folder != shipped), None)


def described(library: Library) -> list[dict[str, Any]]:
    """All networks as the panel and the cards read them; no file is opened for it but the small
    ones beside.
    """
    # One listing per folder, not one per network: thousands of networks share a few folders.
    listings = Listings()
    return [_description(library, e, listings[e.path.parent]) for e in library.entries if e.is_text]


def _description(library: Library, entry: Entry, names: FolderNames) -> dict[str, Any]:
    beside = read_sidecars(entry, names)
    return {
        **for_the_panel(entry, beside),
        "name": library.name_of(entry),
        "full_name": entry.full_name,
        "description": beside.description,
        "family": beside.base_model or None,
        "tags": _tags(beside),
        "preview": beside.preview.stat().st_mtime_ns if beside.preview is not None else None,
    }


def _tags(beside: Sidecars) -> list[str]:
    """The tags that the user has given a network."""
    found = beside.user_metadata.get(TAGS)
    words = [word for word in found if isinstance(word, str)] if isinstance(found, list) else []
    return words[:MOST_TAGS]


def preview_of(library: Library, name: str) -> Path | None:
    """The preview image beside a network's file.

    Raises:
        NameLookupError: there is no such network.
    """
    return read_sidecars(library.find(name)).preview


def checked_name(name: str) -> str:
    """A file name that may be kept: one part, a known suffix, and nothing that a tag can't hold.

    Raises:
        FileError: with what is wrong with it.
    """
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in SUFFIXES:
        raise FileError(
            f"a hypernetwork is a file that ends in {', '.join(SUFFIXES)}: choose such a file"
        )
    if (
        not is_plain(name)
        or not stem.strip()
        or not name.isprintable()
        or set(name) & set('<>:"/\\|?*')
    ):
        raise FileError(
            "a file name can't contain slashes, colons or angle brackets: choose another name"
        )
    if DEVICE.fullmatch(name):
        raise FileError("the file name is a reserved device name on Windows: choose another name")
    if len(name.encode()) > 200:
        raise FileError("the file name is too long: choose a shorter one")

    return name


async def add_file(folder: Path, name: str, chunks: AsyncIterator[bytes]) -> dict[str, Any]:
    """Keep a file that came in pieces, if it is a hypernetwork. What is there is never replaced.

    Returns:
        Its name and what it is.

    Raises:
        FileError: it isn't one, or can't be kept; nothing is left behind.
    """
    target = folder / checked_name(name)
    if target.exists() or (taken := _other_spelling(target)) is not None:
        there = "a file of this name" if target.exists() else taken
        raise FileWriteError(f"{there} already exists: rename one of the two")

    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f".adding-{secrets.token_hex(8)}.tmp"
        # with this mode the system takes the user's mask off, which nobody can ask for without
        # changing it
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    except OSError as error:
        raise FileWriteError(
            f"it can't be saved in {folder.name} ({error.strerror or error})"
        ) from error

    # Under its own name only when it is complete and checked: a library may be read at any time.
    temporary = path
    try:
        size = 0
        with os.fdopen(descriptor, "wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > LARGEST:
                    raise FileError(
                        f"it is larger than {LARGEST >> 30} GiB, which no hypernetwork is"
                    )
                file.write(chunk)
        # Reading takes a while, and every other request would wait for it.
        found = await asyncio.to_thread(_examined, temporary)
        _move(temporary, target)
    except OSError as error:
        if isinstance(error, HypernetworkError):
            raise
        raise FileWriteError(f"it can't be saved ({error.strerror or error})") from error
    finally:
        remove(temporary)

    return {"name": target.stem, "folder": folder.name, **found}


def _examined(path: Path) -> dict[str, Any]:
    """Family and warnings of a file that is a hypernetwork."""
    try:
        report = inspect(read(path), path)
    except HypernetworkError as error:
        raise FileError(str(error).replace(path.name, "it").removeprefix("it: ")) from error
    return {"family": report.family, "warnings": list(report.warnings)}


def _move(temporary: Path, target: Path) -> None:
    """Give a finished file its name, unless someone else took it meanwhile."""
    try:
        move_to_free(temporary, target)
    except FileExistsError as error:
        raise FileWriteError("a file of this name already exists: rename one of the two") from error


def _other_spelling(target: Path) -> str | None:
    """A file that is the same one on Windows or macOS: in other case, or with accents stored
    otherwise.
    """
    try:
        names = os.listdir(target.parent)
    except OSError:
        return None
    return next((name for name in names if folded(name) == folded(target.name)), None)


def choices(library: Library) -> Sequence[str]:
    """Names to choose from, as tags write them."""
    return list(dict.fromkeys(library.name_of(e) for e in library.entries if e.is_text))
