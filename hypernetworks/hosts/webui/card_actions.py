"""What the menu of a card does to the files of a network: all of it changes or shows something on
the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...errors import FileError, HypernetworkError
from ...files import read, write
from ...files.images import open_image
from ...files.writing import replace
from ...library import Entry
from ...library.sidecars import Sidecars, write_user_metadata
from . import folders, settings

FAVORITE, TAGS = "favorite", "tags"
"""Keys of ``NAME.json``: ``true``, and a list of words."""
PREVIEW_SIDE = 768
"""Larger images are scaled down to it; cards are smaller still."""
MOST_TAGS = 50
Action = Callable[[Entry, Mapping[str, str], bytes], "dict[str, Any]"]


def marks_of(beside: Sidecars) -> dict[str, Any]:
    """What the filter over the cards asks about a network, from its ``NAME.json``."""
    tags = beside.user_metadata.get(TAGS)
    words = [word for word in tags if isinstance(word, str)] if isinstance(tags, list) else []
    return {FAVORITE: beside.user_metadata.get(FAVORITE) is True, TAGS: words[:MOST_TAGS]}


def set_favorite(entry: Entry, asked: Mapping[str, str], _: bytes) -> dict[str, Any]:
    """Make it a favourite (``on=1``), or no longer one."""
    on = asked.get("on") == "1"
    write_user_metadata(entry, {FAVORITE: True if on else None})
    return {FAVORITE: on}


def set_tags(entry: Entry, asked: Mapping[str, str], _: bytes) -> dict[str, Any]:
    """Store its tags (``tags=``, separated by commas)."""
    words = (word.strip() for word in asked.get("tags", "").split(","))
    tags = list(dict.fromkeys(word for word in words if word))[:MOST_TAGS]
    write_user_metadata(entry, {TAGS: tags or None})
    return {TAGS: tags}


def set_preview(entry: Entry, _: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Store the image in the request's body as ``NAME.preview.png``.

    It is written anew: nothing of the file that was sent but its pixels gets to the disk.
    """
    from PIL import ImageOps

    # As a file, because that is how images are checked before they are decoded.
    with TemporaryDirectory(prefix="hypernetworks-") as folder:
        temporary = Path(folder) / "sent"
        temporary.write_bytes(body)
        with open_image(temporary, ("PNG", "JPEG", "WEBP")) as sent:
            image = ImageOps.exif_transpose(sent).convert("RGB")

    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    path = entry.path.with_name(f"{entry.name}.preview.png")
    replace(path, lambda temporary: image.save(temporary, "PNG"))
    return {"preview": path.name}


def reveal(entry: Entry, _: Mapping[str, str], __: bytes) -> dict[str, Any]:
    """Open the network's folder on the server, where that is the user's own machine."""
    from modules import util

    opener = getattr(util, "open_folder", None)
    if opener is None or settings.is_remote():
        raise HypernetworkError(
            "this webui opens no folders: it can be reached from other machines"
        )
    opener(str(entry.path.parent))
    return {"opened": True}


def convert(entry: Entry, _: Mapping[str, str], __: bytes) -> dict[str, Any]:
    """Write it beside itself: as ``.safetensors``, or as ``.pt`` if it is one already."""
    suffix = ".pt" if entry.path.suffix.lower() == ".safetensors" else ".safetensors"
    target = entry.path.with_suffix(suffix)
    if target.exists():
        raise FileError(f"{target.name} exists already: rename or remove it first")
    write(read(entry.path), target)
    folders.refresh()
    return {"written": target.name}


ACTIONS: dict[str, Action] = {
    "/favorite": set_favorite,
    "/tags": set_tags,
    "/set_preview": set_preview,
    "/reveal": reveal,
    "/convert": convert,
}
"""By route. All are asked with ``?name=NAME``."""
