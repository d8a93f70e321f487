"""Turns an infotext back into tags that name local files: the same rules for every host."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import NameLookupError
from ..library import Entry, Library
from ..prompts import Tag, parse
from ..prompts.infotext import parse_hashes
from ..prompts.rewriting import add_tag, rewrite_tags
from .infotext import HASHES

SECONDS = 2.0
"""How long one infotext may hash files in search of a renamed one."""
USED = ("Hypernet", "Hypernet hash", "Hypernet strength", HASHES)
"""Infotext keys that are read here."""
_HASHED_NAME = re.compile(r"\s*(.+)[(\[]([0-9a-f]{8,64})[)\]]\s*")
_EARLY = 8


def bring_back(
    prompts: Mapping[str, str], pairs: Mapping[str, Any], source: Source, main: str
) -> dict[str, str]:
    """The prompts of an infotext, with tags renamed to the local files.

    An infotext of before January 2023 has no tags, but keys, of which a tag is made.

    Args:
        prompts: by the host's own keys.
        pairs: the settings of the infotext.
        source: knows the files.
        main: key of the prompt that such a tag is added to.
    """
    early = early_tag(pairs)
    hashes = parse_hashes(str(pairs.get(HASHES) or ""))
    if early is not None and (early_hash := pairs.get("Hypernet hash")):
        # SD.Next makes a number of digits
        hashes.setdefault(early.name, str(early_hash).zfill(_EARLY))

    renaming = Renaming(source, hashes)
    renamed = {key: rewrite_tags(prompt, renaming) for key, prompt in prompts.items()}
    if early is not None and main in renamed:
        tag = renaming(early)
        if not any(other.name == tag.name for other in parse(renamed[main])[1]):
            # A1111, Forge and reForge have added it
            renamed[main] = add_tag(renamed[main], tag)
    return renamed


def early_tag(params: Mapping[str, Any]) -> Tag | None:
    """Infotexts of before January 2023 have no tags, but ``Hypernet``, ``Hypernet hash``,
    ``Hypernet strength``.
    """
    name = str(params.get("Hypernet") or "")
    return None if name in ("", "None") else Tag((name, str(params.get("Hypernet strength", 1))))


@dataclass(frozen=True)
class Source:
    """How a host looks up files.

    Attributes:
        library: of the host.
        known_hash: first ten digits of a file's SHA-256 if they are known already.
        short_hash: the same; may read the file.
        refresh: looks at the folders again.
        tell: takes a line for the user, or for the console.
    """

    library: Library
    known_hash: Callable[[Entry], str | None]
    short_hash: Callable[[Entry], str | None]
    refresh: Callable[[], object]
    tell: Callable[[str], object]


class Renaming:
    """Renames a tag to the local name of its file, found by hash if the name differs.

    Args:
        source: knows the files.
        hashes: by the names of the infotext.
    """

    def __init__(self, source: Source, hashes: Mapping[str, str]) -> None:
        self._source, self._library = source, source.library
        self._hashes = {name.casefold(): value for name, value in hashes.items()}
        self._deadline = time.monotonic() + SECONDS
        self._refreshed = False
        self._known: dict[str, str] = {}

    def __call__(self, tag: Tag) -> Tag:
        if tag.name not in self._known:
            self._known[tag.name] = self._name_here(tag.name)
        return tag if self._known[tag.name] == tag.name else tag.with_name(self._known[tag.name])

    def _name_here(self, name: str) -> str:
        hashed = _HASHED_NAME.fullmatch(name)
        entry = self._named(name)
        if entry is not None:
            own = (entry.name.casefold(), entry.full_name.casefold())
            return (
                name
                if hashed is None or name.strip().casefold() in own
                else self._library.name_of(entry)
            )

        plain = hashed[1] if hashed else name
        wanted = self._hash_of(name) or self._hash_of(plain) or (hashed[2] if hashed else None)
        entry = self._find(wanted, plain) if wanted else None
        here = self._library.name_of(entry) if entry is not None else name
        if here == name or any(character in here for character in ":>"):  # which no tag can hold
            return name

        self._source.tell(f'"{name}" in the infotext is called "{here}" here (same hash)')
        return here

    def _named(self, name: str) -> Entry | None:
        """The file of this name, as the folders are now: the last refresh may have been long
        ago.
        """
        for _ in range(2):
            with suppress(NameLookupError):
                entry = self._library.find(name)
                if entry.path.is_file():
                    return entry
            if self._refreshed:
                break
            self._refreshed = True
            self._source.refresh()
        return None

    def _hash_of(self, name: str) -> str | None:
        """From "Hypernet hashes", where a file in a subfolder may stand with or without its
        folder.
        """
        name = name.strip().casefold()
        return self._hashes.get(name) or next(
            (v for n, v in self._hashes.items() if n.rpartition("/")[2] == name.rpartition("/")[2]),
            None,
        )

    def _find(self, wanted: str, near: str) -> Entry | None:
        """The file with this hash: one that was hashed before, else one with a similar name, while
        time lasts.
        """
        likely = _by_likeness(self._library.entries, near.rpartition("/")[2])
        for entry in likely:
            if _begins(self._source.known_hash(entry), wanted):
                return entry

        for number, entry in enumerate(likely):
            if number and time.monotonic() > self._deadline:
                self._source.tell(
                    f'no file is called "{near}"; {number} of {len(likely)} were compared by hash '
                    "before time ran out: try again to continue"
                )
                return None
            if self._has_hash(entry, wanted):
                return entry

        return None

    def _has_hash(self, entry: Entry, wanted: str) -> bool:
        try:
            if len(wanted) == _EARLY and entry.early_hash() == wanted:
                return True
        except OSError:
            return False
        return len(wanted) > _EARLY and _begins(self._source.short_hash(entry), wanted)


def _by_likeness(entries: Iterable[Entry], name: str) -> list[Entry]:
    matcher = difflib.SequenceMatcher(None, "", name.casefold(), autojunk=False)

    def unlikeness(entry: Entry) -> float:
        matcher.set_seq1(entry.name.casefold())
        return -matcher.ratio()

    return sorted(entries, key=unlikeness)


def _begins(known: str | None, wanted: str) -> bool:
    return known is not None and known.startswith(wanted[: len(known)])
