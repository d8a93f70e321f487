"""The files beside a network, with the names that webuis use: preview, description, notes.

For ``ink.safetensors`` these are ``ink.preview.png`` (or ``ink.png``, and other image suffixes),
``ink.txt``, ``ink.json`` (written by the card editor, with the keys of LoRA cards) and
``ink.civitai.info`` (saved by download tools).
"""

from __future__ import annotations

import html
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..files.naming import folded
from ..files.writing import replace
from .entry import Entry

PREVIEW_SUFFIXES: tuple[str, ...] = ("png", "jpg", "jpeg", "webp", "gif")
"""Suffixes of images that webuis show as previews."""
ACTIVATION_TEXT, MULTIPLIER, NOTES, BASE_MODEL = (
    "activation text",
    "preferred weight",
    "notes",
    "sd version",
)
"""Keys of ``NAME.json``, the same as for AUTOMATIC1111's LoRA cards."""
DESCRIPTION = "description"
_LARGEST = 2 << 20
_LONGEST_DESCRIPTION = 1 << 14


class FolderNames(frozenset[str]):
    """The names in a folder."""

    @cached_property
    def _by_folded(self) -> dict[str, str]:
        return {folded(name): name for name in sorted(self, reverse=True)}

    def spelled(self, name: str) -> str | None:
        """The name as it is written there, such as ``ink.PNG`` for ``ink.png``, or ``None``."""
        return name if name in self else self._by_folded.get(folded(name))


class Listings(dict[Path, FolderNames]):
    """The names in folders; each folder is read once, when it is first needed.

    A folder that can't be read counts as empty.
    """

    def __missing__(self, folder: Path) -> FolderNames:
        try:
            self[folder] = FolderNames(os.listdir(folder))
        except OSError:
            self[folder] = FolderNames()
        return self[folder]


@dataclass(frozen=True)
class Sidecars:
    """The result of :func:`read_sidecars`. Missing or broken values are empty.

    Attributes:
        preview: the image to show.
        description: plain text.
        activation_text: added to the prompt together with the tag.
        preferred_multiplier: ``None`` for the default.
        notes: the user's notes.
        base_model: ``"SD1"``, ``"SD2"``, ``"SDXL"`` or empty, according to the user or the site.
        title: the model's name on the site.
        user_metadata: the content of ``NAME.json``.
        warnings: what couldn't be read, in words.
    """

    preview: Path | None = None
    description: str = ""
    activation_text: str = ""
    preferred_multiplier: float | None = None
    notes: str = ""
    base_model: str = ""
    title: str = ""
    user_metadata: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_sidecars(entry: Entry, names: FolderNames | None = None) -> Sidecars:
    """Read all files beside an entry.

    Broken files raise no error; they give empty values and a warning.

    Args:
        entry: the network's file.
        names: the names in its folder, if they are known; saves a system call per possible file.
    """
    warnings: list[str] = []
    user = _json(_beside(entry, ".json"), names, warnings)
    from_site = _json(_beside(entry, ".civitai.info"), names, warnings)
    # Some tools save the site's data as NAME.json, where others keep the user's.
    site = _of_site(from_site or (user if "modelVersions" in user else {}))

    return Sidecars(
        preview=find_preview(_beside(entry, ""), names),
        description=_description(user, entry, names, warnings) or site["title"],
        activation_text=_text(user, ACTIVATION_TEXT, entry, warnings, site["words"]),
        preferred_multiplier=_multiplier(user.get(MULTIPLIER), entry, warnings),
        notes=_text(user, NOTES, entry, warnings),
        base_model=family_named(_text(user, BASE_MODEL, entry, warnings))
        or family_named(site["base_model"]),
        title=site["title"],
        user_metadata=user,
        warnings=tuple(warnings),
    )


def for_the_panel(entry: Entry, beside: Sidecars) -> dict[str, Any]:
    """What the panel in the page needs of a network: plain values, for JSON."""
    return {
        "folder": entry.folder,
        "suffix": entry.path.suffix,
        "size": entry.size,
        "mtime": entry.mtime_ns / 1e9,
        "preferred_multiplier": beside.preferred_multiplier,
        "activation_text": beside.activation_text,
    }


def write_user_metadata(entry: Entry, changes: Mapping[str, Any]) -> None:
    """Change keys of ``NAME.json`` and keep all others; ``None`` removes a key.

    The file is never left incomplete. If the old one can't be read, it is kept as
    ``NAME.json.unreadable``.

    Raises:
        FileWriteError: the system refuses.
    """
    path = _beside(entry, ".json")
    warnings: list[str] = []
    merged = {**_json(path, None, warnings), **changes}
    content = json.dumps(
        {k: v for k, v in merged.items() if v is not None}, indent=4, ensure_ascii=False
    )

    # Inside the replacement: the copy is made before the old file is gone, and only then.
    def save(temporary: Path) -> None:
        temporary.write_bytes(content.encode("utf-8", "replace"))
        if warnings:
            aside = path.with_name(f"{path.name}.unreadable")
            replace(aside, lambda temporary_aside: shutil.copyfile(path, temporary_aside))

    replace(path, save)


def find_preview(
    stem: Path, names: FolderNames | None = None, suffixes: Iterable[str] = PREVIEW_SUFFIXES
) -> Path | None:
    """The preview image of a file: ``NAME.preview.SUFFIX`` before ``NAME.SUFFIX``.

    Args:
        stem: the file's path without its suffix.
        names: the names in its folder, if they are known.
        suffixes: of images, the preferred ones first.
    """
    candidates = (
        f"{stem.name}{middle}.{suffix}" for middle in (".preview", "") for suffix in suffixes
    )
    is_known = names is not None
    there = Listings()[stem.parent] if names is None else names
    found = (stem.parent / name for c in candidates if (name := there.spelled(c)) is not None)

    return next((path for path in found if is_known or _is_file(path)), None)


def family_named(text: str) -> str:
    """The family of a base model with the name that users or sites use; empty if unknown.

    ``"SD 1.5"`` is ``"SD1"``, for instance.
    """
    plain = text.casefold().replace(" ", "").replace("stablediffusion", "sd")
    families = {"SDXL": ("sdxl", "pony", "illustrious", "noobai"), "SD2": ("sd2",), "SD1": ("sd1",)}
    return next((name for name, starts in families.items() if plain.startswith(starts)), "")


def _beside(entry: Entry, suffix: str) -> Path:
    return entry.path.with_name(f"{entry.name}{suffix}")


def _is_file(path: Path) -> bool:
    """Whether it is a regular file; reading a pipe would never end."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long together with its suffix
        return False


def _json(path: Path, names: FolderNames | None, warnings: list[str]) -> dict[str, Any]:
    """The JSON object in a file; empty, with a warning, if there is none."""
    content = _bytes(path, names, warnings)
    if content is None:
        return {}
    try:
        decoded = json.loads(content.decode("utf-8-sig"), parse_int=_integer)
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        warnings.append(f"{path.name} is not a JSON object and was ignored")
        return {}
    return decoded


def _integer(text: str) -> int:
    """A whole number of at most 4,000 digits."""
    # Python before 3.10.7 (AUTOMATIC1111 recommends 3.10.6) needs 3 s for a million digits.
    if len(text) > 4000:
        raise ValueError("a number has too many digits")
    return int(text)


def _bytes(path: Path, names: FolderNames | None, warnings: list[str]) -> bytes | None:
    if names is not None:
        name = names.spelled(path.name)
        if name is None:
            return None
        path = path.with_name(name)
    if not _is_file(path):
        return None

    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        warnings.append(f"{path.name} can't be read ({error.strerror or error})")
        return None

    if len(content) > _LARGEST:
        warnings.append(f"{path.name} is larger than {_LARGEST >> 20} MiB and was ignored")
        return None
    return content


def _description(
    user: Mapping[str, Any], entry: Entry, names: FolderNames | None, warnings: list[str]
) -> str:
    """The card editor's description, even if it is empty; otherwise that of the text file."""
    written = user.get(DESCRIPTION)
    if isinstance(written, str):
        text = _without_markup(written) if "modelVersions" in user else written
        return _sound(text)[:_LONGEST_DESCRIPTION]

    for suffix in (".txt", ".description.txt"):
        content = _bytes(_beside(entry, suffix), names, warnings)
        if content is not None:
            return (
                content[: 4 * _LONGEST_DESCRIPTION]
                .decode("utf-8-sig", "replace")[:_LONGEST_DESCRIPTION]
                .strip()
            )

    return ""


def _text(
    user: Mapping[str, Any], key: str, entry: Entry, warnings: list[str], otherwise: str = ""
) -> str:
    value = user.get(key)
    if value is not None and not isinstance(value, str):
        warnings.append(f'"{key}" in {entry.name}.json is not text and was ignored')
        value = None
    return otherwise if value is None else _sound(value).strip()


def _multiplier(value: Any, entry: Entry, warnings: list[str]) -> float | None:
    """A number, also as text; 0 means the default multiplier, as for LoRA cards."""
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        warnings.append(f'"{MULTIPLIER}" in {entry.name}.json is not a number and was ignored')
        return None
    return number or None


def _of_site(info: Mapping[str, Any]) -> dict[str, str]:
    """Trigger words, base model and title, from the site's data on a version or on a model."""
    versions = info.get("modelVersions")
    is_model = isinstance(versions, list)
    version = (
        next((v for v in versions if isinstance(v, dict)), {})
        if isinstance(versions, list)
        else info
    )
    model = info if is_model else info.get("model")

    words = version.get("trainedWords")
    words = [w.strip(" ,") for w in words if isinstance(w, str)] if isinstance(words, list) else []
    title = model.get("name") if isinstance(model, Mapping) else None
    base = version.get("baseModel")

    return {
        "words": _sound(", ".join(w for w in words if w)),
        "base_model": base if isinstance(base, str) else "",
        "title": _sound(title) if isinstance(title, str) else "",
    }


def _sound(text: str) -> str:
    """The text without half surrogate pairs, which JSON allows but UTF-8 can't encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


_TAG = re.compile(r"<(?=[a-zA-Z/!?])(/?[a-zA-Z0-9]*)(?![a-zA-Z0-9])[^<>]*>")


def _without_markup(text: str) -> str:
    """The text of a site's description, which is HTML.

    Without :mod:`html.parser`, which takes minutes for some kilobytes of unfinished tags.
    """
    ends = {"/p", "/li", "/h1", "/h2", "/h3"}
    plain = _TAG.sub(
        lambda tag: "\n" if tag[1].lower() in ends else "", text[: 2 * _LONGEST_DESCRIPTION]
    )
    return html.unescape(plain).strip()
