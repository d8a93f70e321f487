"""What a card of the Hypernetworks tab shows and does, whichever webui draws it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ....engine.families import LABELS, family_label
from ....engine.network import Provenance
from ....errors import HypernetworkError
from ....files import read, read_description
from ....library import Entry, Library, inspect, norm_rows, report_rows
from ....library.sidecars import Listings, Sidecars, read_sidecars
from .. import folders, hashes

UNKNOWN = "unknown"
Click = tuple[str, float | None, str]
"""What a click puts into the prompt: name, multiplier (``None`` for the default), activation text.
"""


@dataclass(frozen=True)
class Facts:
    """What a file tells of itself, as far as its card needs it.

    Attributes:
        family: base model family by the widths, or ``"unknown"``.
        trained_with: checkpoint and steps, in words; empty if the file doesn't tell.
        problem: why the file can't be used.
    """

    family: str = UNKNOWN
    trained_with: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Card:
    """One card. Its texts are plain, not HTML.

    Attributes:
        name: as a tag writes it.
        marks: what the user should know before using it; each begins with a sign.
    """

    name: str
    entry: Entry
    beside: Sidecars
    facts: Facts
    marks: tuple[str, ...]

    @property
    def filename(self) -> str:
        """The absolute path."""
        return absolute(self.entry.path)

    @property
    def family(self) -> str:
        """What the widths tell; where they don't, what the user or the site says."""
        return (
            self.facts.family if self.facts.family != UNKNOWN else self.beside.base_model or UNKNOWN
        )

    @property
    def description(self) -> str:
        """Marks, the user's description, and what it was trained with; one per line."""
        trained = f"trained with {self.facts.trained_with}" if self.facts.trained_with else ""
        return "\n".join(line for line in (*self.marks, self.beside.description, trained) if line)

    @property
    def click(self) -> Click | None:
        """What a click toggles; nothing for names that a tag can't hold."""
        if not nameable(self.name):
            return None
        return self.name, self.beside.preferred_multiplier, self.beside.activation_text


def absolute(path: Path) -> str:
    """The absolute path without detours, links kept: as the hosts write paths."""
    return os.path.normpath(path.absolute())


def nameable(name: str) -> bool:
    """Whether a tag can hold this name."""
    return ":" not in name and ">" not in name


def named(library: Library) -> dict[str, list[Entry]]:
    """Entries by the name that a tag writes.

    More than one: the first is meant, and no tag can mean the others.

    Files whose path is no valid text are left out: neither a page nor a tag can carry it.
    """
    found: dict[str, list[Entry]] = {}
    for entry in sorted((e for e in library.entries if e.is_text), key=lambda e: e.place):
        name = library.name_of(entry)
        if entry.place and name not in found and not library.means(name, entry):
            name = name.removesuffix(entry.path.suffix)
        found.setdefault(name, []).append(entry)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


class Deck:
    """All cards of the current library.

    Each card is built on demand, so one that fails does not affect the others.
    """

    def __init__(self) -> None:
        self._entries = named(folders.library())
        self._loaded = loaded_family()
        self._listings = Listings()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all cards, in the library's order."""
        return tuple(self._entries)

    def name_at(self, filename: str) -> str | None:
        """The name of the card whose file is at this absolute path."""
        return next(
            (
                name
                for name, entries in self._entries.items()
                if absolute(entries[0].path) == filename
            ),
            None,
        )

    def card(self, name: str) -> Card:
        """The card of this name; looks at the file and at what stands beside it.

        Raises:
            KeyError: there is none.
        """
        entries = self._entries[name]
        beside = read_sidecars(entries[0], self._listings[entries[0].path.parent])
        plain = Card(name, entries[0], beside, facts(entries[0]), ())
        return replace(
            plain, marks=tuple(f"⚠ {mark}" for mark in _marks(plain, entries, self._loaded))
        )


def _marks(card: Card, entries: list[Entry], loaded: str | None) -> Iterator[str]:
    if not nameable(card.name):
        yield "a tag can't hold this name because it contains : or >: rename the file"
    if len(entries) > 1:
        others = ", ".join(str(e.path) for e in entries[1:])
        yield f"it takes precedence over {others}, which has the same name"
    if problem := problem_of(card.facts, card.family, loaded):
        yield problem
    yield from card.beside.warnings


def problem_of(known: Facts, family: str, loaded: str | None) -> str | None:
    """Why a file has no effect on the loaded model; ``None`` if nothing is known against it.

    Args:
        loaded: the family of the loaded model; ``None`` if none is loaded, or any is fine.
    """
    if known.problem:
        return f"it can't be used: {known.problem}"
    if loaded is not None and family != UNKNOWN and loaded not in family.split(" or "):
        return f"made for {family}, but the loaded model is {loaded}"
    return None


def facts(entry: Entry) -> Facts:
    """The facts about a file, read once until it changes, without its weights."""
    try:
        return _facts(entry)
    except HypernetworkError as error:
        return Facts(problem=str(error))


@lru_cache(
    maxsize=1 << 16
)  # more than any library has: a list that is longer than its memory is read anew each time
def _facts(entry: Entry) -> Facts:
    found = read_description(entry.path)
    return Facts(family_label(found.widths), _trained_with(found.provenance))


def _trained_with(provenance: Provenance) -> str:
    if not provenance.checkpoint_name:
        return ""
    steps = f", {provenance.step} steps" if provenance.step else ""
    return sound(f"{provenance.checkpoint_name}{steps}")


def sound(text: str) -> str:
    """Text that can be sent: halves of surrogate pairs, which no encoder takes, are replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def loaded_family() -> str | None:
    """The family of the model that is loaded by now; doesn't load one, as ``shared.sd_model``
    would.
    """
    holder = sys.modules.get("modules.modeldata") or sys.modules.get("modules.sd_models")
    model = getattr(getattr(holder, "model_data", None), "sd_model", None)
    for name, flag in (("SDXL", "is_sdxl"), ("SD2", "is_sd2"), ("SD1", "is_sd1")):
        if getattr(model, flag, False) is True:
            return name
    configuration = getattr(getattr(model, "unet", None), "config", None)  # SD.Next, on diffusers
    width = getattr(configuration, "cross_attention_dim", None)
    return LABELS.get(width) if isinstance(width, int) else None


def script(tab: str, click: Click | None) -> str:
    """The JavaScript of a click. To be escaped once for an HTML attribute.

    Args:
        tab: a JavaScript expression for the tab's name.
    """
    if click is None:
        return ""
    return (
        f"hypernetworksExtension.toggle({tab}, {', '.join(json.dumps(value) for value in click)});"
    )


class Metadata(MutableMapping[str, dict[str, Any]]):
    """What the metadata button shows, by card name; computed when it is asked for.

    What hosts put in is ignored.
    """

    def __getitem__(self, name: str) -> dict[str, Any]:
        return describe(named(folders.library())[name][0])

    def __iter__(self) -> Iterator[str]:
        return iter(named(folders.library()))

    def __len__(self) -> int:
        return len(named(folders.library()))

    def __setitem__(self, name: str, value: object) -> None:
        """Hosts fill it while they list the cards."""

    def __delitem__(self, name: str) -> None:
        """There is nothing to remove."""


def describe(entry: Entry) -> dict[str, Any]:
    """Structure, family, norms, provenance and warnings of a file; plain values, fit for JSON."""
    try:
        content = _describe(entry)
    except HypernetworkError as error:
        content = {"Error": sound(str(error))}

    sha256 = folders.short_hash(entry)
    return {"File": entry.path.name, **({"Hash": sha256} if sha256 else {}), **content}


@lru_cache(maxsize=64)
def _describe(entry: Entry) -> dict[str, Any]:
    found = inspect(read(entry.path), entry.path)
    described = {
        **report_rows(found),
        "Norms": {label: ", ".join(norms) for label, norms in norm_rows(found).items()},
        "Warnings": dict(enumerate(found.warnings, start=1)),
    }
    return json.loads(sound(json.dumps(described, ensure_ascii=False)))  # type: ignore[no-any-return]


def known_hash(card: Card) -> str | None:
    """The file's SHA-256 if the host has computed it by now; a list of many files is no time to do
    so.
    """
    return hashes.known_sha256(card.entry, card.name)
