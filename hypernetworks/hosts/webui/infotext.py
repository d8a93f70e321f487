"""What the infotext says of networks, and what becomes of it when it is pasted."""

from __future__ import annotations

import difflib
import re
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from ...errors import NameLookupError
from ...library import Entry, Library
from ...prompts import Tag, parse
from ...prompts.infotext import parse_hashes
from ...prompts.rewriting import rewrite_tags
from ..infotext import HASHES
from . import folders

SECONDS = 2.0
"""How long one pasting may hash files in search of a renamed one."""
_PROMPTS = ("Prompt", "Hires prompt", "Refiner prompt")
_HASHED_NAME = re.compile(r"(.+)\(([0-9a-f]{8,64})\)")
_EARLY = 8


def on_pasted(_infotext: str, params: dict[str, Any]) -> None:
    """Callback ``on_infotext_pasted``: the prompts' tags name files that are here, as far as names or hashes tell.

    Args:
        params: the host's reading of the infotext; changed in place.
    """
    early = _early_tag(params)
    hashes = parse_hashes(str(params.get(HASHES) or ""))
    if early is not None and (early_hash := params.get("Hypernet hash")):
        hashes.setdefault(
            early.name, str(early_hash).zfill(_EARLY)
        )  # SD.Next makes a number of digits
    renaming = _Renaming(folders.library(), hashes)
    for key in _PROMPTS:
        if isinstance(prompt := params.get(key), str):
            params[key] = rewrite_tags(prompt, renaming)
    if early is not None and isinstance(prompt := params.get("Prompt"), str):
        tag = renaming(early)
        if not any(
            other.name == tag.name for other in parse(prompt)[1]
        ):  # A1111, Forge and reForge have added it
            params["Prompt"] = f"{prompt}{tag}"


def _early_tag(params: Mapping[str, Any]) -> Tag | None:
    """Infotexts of before January 2023 have no tags, but ``Hypernet``, ``Hypernet hash``, ``Hypernet strength``."""
    name = str(params.get("Hypernet") or "")
    return None if name in ("", "None") else Tag((name, str(params.get("Hypernet strength", 1))))


class _Renaming:
    """Gives a tag the name that its file has here."""

    def __init__(self, library: Library, hashes: Mapping[str, str]) -> None:
        self._library = library
        self._hashes = {name.casefold(): value for name, value in hashes.items()}
        self._deadline = time.monotonic() + SECONDS
        self._refreshed = False
        self._known: dict[str, str] = {}

    def __call__(self, tag: Tag) -> Tag:
        if tag.name not in self._known:
            self._known[tag.name] = self._name_here(tag.name)
        return tag if self._known[tag.name] == tag.name else tag.with_name(self._known[tag.name])

    def _name_here(self, name: str) -> str:
        hashed = _HASHED_NAME.fullmatch(name.strip())
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
        print(
            f'Hypernetworks: "{name}" of the pasted text is "{here}" here (same hash)',
            file=sys.stderr,
        )
        return here

    def _named(self, name: str) -> Entry | None:
        """The file of this name, as the folders are now: the last refresh may have been long ago."""
        for _ in range(2):
            with suppress(NameLookupError):
                entry = self._library.find(name)
                if entry.path.is_file():
                    return entry
            if self._refreshed:
                break
            self._refreshed = True
            folders.refresh()
        return None

    def _hash_of(self, name: str) -> str | None:
        """From "Hypernet hashes", where a file in a sub-folder may stand with or without its folder."""
        name = name.strip().casefold()
        return self._hashes.get(name) or next(
            (v for n, v in self._hashes.items() if n.rpartition("/")[2] == name.rpartition("/")[2]),
            None,
        )

    def _find(self, wanted: str, near: str) -> Entry | None:
        """The file with this hash: one that was hashed before, else one with a similar name, while time lasts."""
        likely = _by_likeness(self._library.entries, near.rpartition("/")[2])
        for entry in likely:
            if _begins(folders.known_hash(entry), wanted):
                return entry
        for number, entry in enumerate(likely):
            if number and time.monotonic() > self._deadline:
                print(
                    f'Hypernetworks: no file is called "{near}"; {number} of {len(likely)} were compared by their hash '
                    "in the time there was, paste again to go on",
                    file=sys.stderr,
                )
                return None
            if _has_hash(entry, wanted):
                return entry
        return None


def _by_likeness(entries: Iterable[Entry], name: str) -> list[Entry]:
    matcher = difflib.SequenceMatcher(None, "", name.casefold(), autojunk=False)

    def unlikeness(entry: Entry) -> float:
        matcher.set_seq1(entry.name.casefold())
        return -matcher.ratio()

    return sorted(entries, key=unlikeness)


def _begins(known: str | None, wanted: str) -> bool:
    return known is not None and known.startswith(wanted[: len(known)])


def _has_hash(entry: Entry, wanted: str) -> bool:
    try:
        if len(wanted) == _EARLY and entry.early_hash() == wanted:
            return True
    except OSError:
        return False
    return len(wanted) > _EARLY and _begins(folders.short_hash(entry), wanted)
