"""An image's own words: from a file beside it, from the folder's metadata, else from its file
name.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TrainingDataError
from ..files.naming import folded

LARGEST = 1 << 16
"""Bytes of a caption file; what is drawn from it is made anew for every sample."""
LARGEST_METADATA = 1 << 28
"""Bytes of a file with the captions of a whole folder."""
TEXT_SUFFIXES = (".txt", ".caption")
"""Of caption files, in the order in which they count: ``.txt`` is usual, ``.caption`` is kohya's
default.
"""
METADATA = ("metadata.jsonl", "metadata.json", "meta_cap.json", "meta_clean.json", "captions.json")
"""Files with the captions of a whole folder: of Hugging Face's datasets (``.jsonl``), and of
kohya's scripts.
"""
_KEYS = ("caption", "text", "prompt", "description", "tags")
"""What a caption is called in JSON, in the order in which they count."""
_MOST_FOREIGN = 0.25
"""Share of bytes beyond ASCII in text that is taken for Windows-1252.

More of them are another encoding's.
"""

FILE, METADATA_FILE, FILE_NAME, NONE = "caption files", "metadata", "file names", "nothing"
CLASS, CAPTIONER = "the folder's words", "the captioner"
"""Where words may come from, for messages."""


@dataclass(frozen=True)
class Words:
    """The words of one image.

    Attributes:
        text: all of it on one line.
        lines: the lines of its file, or the captions in its metadata, when there are several.
        source: one of :data:`FILE`, :data:`METADATA_FILE`, :data:`FILE_NAME` and :data:`NONE`.
        file: name of the file that they are from, if any.
        note: what the user should know about that file, such as ``"read as Windows-1252"``.
    """

    text: str
    lines: tuple[str, ...] = ()
    source: str = FILE_NAME
    file: str | None = None
    note: str | None = None


class Beside:
    """What stands beside the images of one folder, read once.

    Args:
        folder: one that exists, or not; then nothing is beside an image.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._paths = {folded(path.name): path for path in sorted(folder.iterdir())}
        except OSError:
            self._paths = {}
        self._metadata: dict[str, Any] | None = None
        self.used: set[str] = set()

    def caption_file(self, picture: Path) -> Path | None:
        """``x.txt``, ``x.caption``, ``x.png.txt`` or ``x.png.caption`` of ``x.png``, in any
        case.
        """
        names = [stem + suffix for suffix in TEXT_SUFFIXES for stem in (picture.stem, picture.name)]
        return self._first(names)

    def json_file(self, picture: Path) -> Path | None:
        """``x.json`` or ``x.png.json`` of ``x.png``."""
        return self._first([f"{picture.stem}.json", f"{picture.name}.json"])

    def _first(self, names: Iterable[str]) -> Path | None:
        found = [path for name in names if (path := self._paths.get(folded(name))) is not None]
        self.used.update(path.name for path in found)
        return found[0] if found else None

    def metadata(self, picture: Path) -> Any:
        """What the folder's metadata files say of an image; ``None`` for nothing.

        Raises:
            TrainingDataError: such a file can't be read.
        """
        if self._metadata is None:
            found: dict[str, Any] = {}
            for name in reversed(METADATA):
                if (path := self._paths.get(name)) is not None:
                    self.used.add(path.name)
                    found |= {folded(key): value for key, value in _entries(path)}
            self._metadata = found

        names = (picture.name, picture.stem, str(picture))
        return next((self._metadata[folded(n)] for n in names if folded(n) in self._metadata), None)


def words_of(picture: Path, beside: Beside | None = None) -> str:
    """As :func:`read_words`, the text alone."""
    return read_words(picture, beside).text


def read_words(picture: Path, beside: Beside | None = None) -> Words:
    """An image's words: of the caption file, else of the metadata, else of its file name.

    Args:
        beside: of its folder, where many images of it are asked for.

    Raises:
        TrainingDataError: the file is not text, or too long.
    """
    beside = beside or Beside(picture.parent)
    if (path := beside.caption_file(picture)) is not None:
        text, note = _read_text(path, LARGEST)
        return _words(_lines(text), FILE, path.name, note)

    if (path := beside.json_file(picture)) is not None:
        captions = _captions(_parsed(path, _read_text(path, LARGEST)[0]))
        if captions:
            return _words(captions, METADATA_FILE, path.name)

    captions = _captions(beside.metadata(picture))
    if captions:
        return _words(captions, METADATA_FILE, None)
    text = words_in_name(picture.stem)
    return Words(text, (), FILE_NAME if text else NONE)


def read_caption(path: Path) -> str:
    """The text of a caption file, as it is.

    Raises:
        TrainingDataError: it is not text, or too long.
    """
    return _read_text(path, LARGEST)[0]


def _words(lines: Iterable[str], source: str, file: str | None, note: str | None = None) -> Words:
    found = tuple(" ".join(line.split()) for line in lines if line.strip())
    joined = " ".join(found) if source == FILE else next(iter(found), "")
    return Words(joined, found if len(found) > 1 else (), source, file, note)


def _lines(text: str) -> list[str]:
    from ..files.lines import lines_of  # not at a webui's start, which reads no captions

    return lines_of(text)


def _read_text(path: Path, largest: int) -> tuple[str, str | None]:
    """Text in UTF-8, in UTF-16 with a mark, or in Windows-1252, and a note about the last.

    Raises:
        TrainingDataError: none of these.
    """
    try:
        if path.stat().st_size > largest:
            raise TrainingDataError(
                f"{path.name}: it is too long for a caption. Keep it below {largest >> 10} KiB"
            )

        content = path.read_bytes()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # Windows' "Unicode"
            return content.decode("utf-16"), None
        try:
            return content.decode("utf-8-sig"), None
        except UnicodeDecodeError:
            foreign = sum(byte > 127 for byte in content)
            if b"\0" in content or foreign > _MOST_FOREIGN * len(content):
                raise
            return content.decode("cp1252"), "read as Windows-1252, as it isn't UTF-8"
    except (UnicodeDecodeError, OSError) as error:
        raise TrainingDataError(f"{path.name} isn't valid UTF-8 text: save it as UTF-8") from error


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TrainingDataError(
            f"{path.name} isn't valid JSON: correct it, or remove it"
        ) from error


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Image names and what is said of them: a JSON object by name, a list, or one object a line."""
    text, _ = _read_text(path, LARGEST_METADATA)
    if path.suffix == ".jsonl":
        content: Any = [_parsed(path, line) for line in _lines(text) if line.strip()]
    else:
        content = _parsed(path, text)

    if isinstance(content, Mapping):
        yield from ((str(key), value) for key, value in content.items())
    elif isinstance(content, list):
        for entry in content:
            name = _named(entry)
            if name is not None:
                yield name, entry
    else:
        raise TrainingDataError(f"{path.name} has no captions: see docs/training.md for its form")


def _named(entry: Any) -> str | None:
    if not isinstance(entry, Mapping):
        return None
    name = entry.get("file_name", entry.get("image", entry.get("filename")))
    return name if isinstance(name, str) else None


def _captions(entry: Any) -> list[str]:
    """The captions in a JSON value: text, a list of texts, or an object with either; tags join a
    caption.
    """
    if isinstance(entry, Mapping):
        found = next((entry[key] for key in _KEYS if entry.get(key)), None)
        is_tags = found is not None and not any(entry.get(key) for key in _KEYS[:-1])
        if is_tags and isinstance(found, list):
            return [", ".join(str(tag) for tag in found)]
        return _captions(found) if not isinstance(found, Mapping) else []

    if isinstance(entry, str):
        return [entry]
    if isinstance(entry, list):
        return [text for text in entry if isinstance(text, str)]
    return []


_NUMBER = re.compile(r"[-_\s.]*\d+(?:[-_\s.]+|$)")
"""A number in front of a file name; one that a letter follows belongs to a word (``1girl``,
``4k``).
"""
_MACHINES = {
    "dsc",
    "dscn",
    "dscf",
    "img",
    "mg",
    "vid",
    "dcim",
    "pxl",
    "mp",
    "gopr",
    "gp",
    "sam",
    "cimg",
    "mvimg",
    "photo",
    "image",
    "pic",
    "picture",
    "scan",
    "screenshot",
    "screen",
    "shot",
    "untitled",
    "download",
    "frame",
    "capture",
    "whatsapp",
    "signal",
    "fb",
    "wa",
    "p",
    "at",
    "am",
    "pm",
    "copy",
    "edited",
}
"""What cameras, phones, browsers and messengers put into the names of their files, beside a
number.
"""
_DIGEST = re.compile(r"\{?[0-9a-f]{4,}(-?[0-9a-f]{4,})*\}?", re.IGNORECASE)


def words_in_name(stem: str) -> str:
    """The words of a file name: no numbers in front, ``_`` as a space; nothing where a machine made
    the name.
    """
    # Numbers put files in order; they are no words, unless a letter follows (1girl).
    rest = stem.strip()
    while (match := _NUMBER.match(rest)) is not None:
        rest = rest[match.end() :]
    rest = rest.lstrip("-_ ")
    if is_machine_made(stem) or is_machine_made(rest):
        return ""
    return " ".join(rest.replace("_", " ").split())


def is_machine_made(stem: str) -> bool:
    """Whether a file name says nothing of its image: ``IMG_6003``, ``DSC01234``, a date, a hash."""
    # Machines number their files; a name without a digit was typed by somebody.
    if not any(character.isdigit() for character in stem):
        return False
    if all(part in _MACHINES for part in re.split(r"[\W\d_]+", stem.lower()) if part):
        return True
    return len(stem) >= 16 and _DIGEST.fullmatch(stem) is not None
