"""Finds the file that a name means."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from ..engine.schedules import is_invisible
from ..errors import AmbiguousNameError, UnknownNameError, sendable
from ..files import SUFFIXES, naming
from ..files.naming import composed
from .entry import Entry
from .likeness import Likeness

HasHash = Callable[[Entry, str], bool]
_HASHED_NAME = re.compile(r"(.+)(?:\(([0-9a-f]{8,64})\)|\[([0-9a-f]{8,64})\])")
_UNTIDY = re.compile(r"\\|^\s|\s$|/\s|\s/")
_UNTIDY_LINE = re.compile(_UNTIDY.pattern, re.MULTILINE)
_IN_BRACKETS = re.compile(r"(.+?)\s*\([^()]*\)")
_SUFFIXES = "|".join(map(re.escape, SUFFIXES))
_NAME_WITH_SUFFIX = re.compile(rf"(.+)({_SUFFIXES})", re.IGNORECASE)


def plain(name: str) -> str:
    """The name in composed Unicode, with ``/`` between folders, without blanks at their ends."""
    if _is_simple(name):
        return name
    return "/".join(part.strip() for part in composed(name).replace("\\", "/").split("/"))


def folded(name: str) -> str:
    """As :func:`plain`, and the same for upper and lower case."""
    return naming.folded(plain(name))


def compatible(name: str) -> str:
    """As :func:`folded`, with full-width and other compatibility letters as plain ones, and without
    invisible characters, such as the marks that come along when a name is copied from a web page.
    """
    if _is_simple(name):
        return name.lower()
    visible = "".join(sign for sign in name if sign.isascii() or not is_invisible(sign))
    return folded(unicodedata.normalize("NFKC", visible))


def _is_simple(name: str) -> bool:
    """Whether nothing has to be replaced: most names are simple, and a library may have 50,000."""
    return name.isascii() and _UNTIDY.search(name) is None


def _compatible(names: Sequence[str]) -> list[str]:
    """:func:`compatible` of many names; in one step, if all of them are simple."""
    text = "\n".join(names)
    if text.isascii() and _UNTIDY_LINE.search(text) is None:
        lower = text.lower().split("\n")
        if len(lower) == len(names):  # else a name has a line break
            return lower
    return [compatible(name) for name in names]


_FOLDS: tuple[Callable[[str], str], ...] = (str, plain, folded, compatible)

LONGEST_NAME = 200
"""Characters of the longest name that is compared with all others; file systems allow few more."""


class Names:
    """The entries of one scan, found by name.

    It never changes. Its tables are made when they are needed. For 50,000 files, that takes a tenth
    of a second, so a scan calls :meth:`prepare`.

    Args:
        entries: in the order in which they are listed.
        has_hash: whether a file's hash starts like the given text; may read the file. By default,
            no file's does.
    """

    def __init__(self, entries: tuple[Entry, ...], has_hash: HasHash | None = None) -> None:
        self.entries = entries
        self._has_hash = has_hash

    @cached_property
    def ambiguous(self) -> frozenset[str]:
        """Stems that several files share."""
        return frozenset(
            name for name, count in Counter(e.name for e in self.entries).items() if count > 1
        )

    @cached_property
    def _likeness(self) -> Likeness:
        return Likeness([e.full_name for e in self.entries])

    @cached_property
    def _exact(self) -> dict[str, list[Entry]]:
        return self._by([e.name for e in self.entries], [e.full_name for e in self.entries])

    @cached_property
    def _loose(self) -> dict[str, list[Entry]]:
        """By the loosest form of a name; entries that match a stricter form are under it too."""
        return self._by(
            _compatible([e.name for e in self.entries]),
            _compatible([e.full_name for e in self.entries]),
        )

    def _by(self, stems: Sequence[str], full_names: Sequence[str]) -> dict[str, list[Entry]]:
        table: dict[str, list[Entry]] = {}
        for entry, stem, full_name in zip(self.entries, stems, full_names, strict=True):
            table.setdefault(stem, []).append(entry)
            if full_name != stem:
                table.setdefault(full_name, []).append(entry)
        return table

    def prepare(self) -> None:
        """Make all tables now, so that the first search is as fast as any other."""
        _ = self._exact, self._loose, self._likeness

    def find(self, name: str) -> Entry | None:
        """The file that a tag's name means, or ``None``; see :meth:`Library.find`.

        Raises:
            AmbiguousNameError: several subfolders have it; lists the full names.
        """
        candidates = self._candidates(name)
        if not candidates:
            return None

        first = min(candidates, key=lambda e: e.rank)
        # Another folder of the library is a choice of the user's; another subfolder is not.
        rivals = [
            e for e in candidates if e.place == first.place and e.full_name != first.full_name
        ]
        if rivals:
            names = sorted({e.full_name for e in (first, *rivals)})
            raise AmbiguousNameError(f'the name "{name}" is ambiguous: write {" or ".join(names)}')

        return first

    def passed_over(self, name: str, entry: Entry) -> list[Entry]:
        """The other files that match the name."""
        return [other for other in self._candidates(name) if other is not entry]

    def _candidates(self, name: str) -> list[Entry]:
        """All files that match the strictest form of the name that any file matches, best first."""
        for found in self._readings(name):
            if found:
                return sorted(found, key=lambda e: e.rank)
        return []

    def _readings(self, name: str) -> Iterator[list[Entry]]:
        # Before the stems: a file that its own stem doesn't mean has no other name.
        yield self._with_suffix_only(name)
        yield from self._spelled(name)

        # Last, since a file may be named "ink.pt.safetensors" or "ink(2)".
        if match := _NAME_WITH_SUFFIX.fullmatch(name.strip()):
            for found in self._spelled(match[1]):
                yield [e for e in found if e.path.suffix.lower() == match[2].lower()]

        if match := _HASHED_NAME.fullmatch(name.strip()):
            for found in self._spelled(match[1]):
                has_hash, wanted = self._has_hash, match[2] or match[3]
                yield [e for e in found if has_hash is not None and has_hash(e, wanted)]

    def _with_suffix_only(self, name: str) -> list[Entry]:
        """The files with exactly this path whose name without its suffix means another file, such
        as ``ink.pt`` beside ``ink.safetensors``.
        """
        stem, dot, end = name.rpartition(".")
        same = [e for e in self._exact.get(stem, []) if e.full_name == stem] if dot else []
        if not same:
            return []
        first = min(same, key=lambda e: e.rank)
        is_taken = bool(self._with_suffix_only(stem))
        return [e for e in same if e.path.suffix == f".{end}" and (is_taken or e is not first)]

    def _spelled(self, name: str) -> Iterator[list[Entry]]:
        """The matches for each form of a name, strictest first.

        A file at the top of a library's folder comes before those in subfolders.
        """
        exact = self._exact.get(name, [])
        loose = exact or self._loose.get(compatible(name), [])
        for fold in _FOLDS:
            wanted = fold(name)
            found = [e for e in loose if wanted in (fold(e.name), fold(e.full_name))]
            yield [e for e in found if fold(e.full_name) == wanted] or found

    def name_of(self, entry: Entry) -> str:
        """The shortest name that means this file: stem, ``folder/stem``, or that with its suffix.

        Only a file with the same path in an earlier folder of the library can hide it from all.
        """
        last = entry.full_name + entry.path.suffix
        names = [entry.full_name] if entry.name in self.ambiguous else [entry.name, entry.full_name]
        return next((name for name in names if self._is(name, entry)), last)

    def _is(self, name: str, entry: Entry) -> bool:
        """Whether the name means this file, whatever another suffix or spelling could mean."""
        candidates = self._with_suffix_only(name) or next(self._spelled(name))
        return bool(candidates) and min(candidates, key=lambda e: e.rank) is entry

    def unknown(self, name: str, suggest: bool = True) -> UnknownNameError:
        """The error for an unknown name, with similar names unless it is very long."""
        if not suggest or len(name) > LONGEST_NAME:
            return UnknownNameError(f'there is no hypernetwork "{name}"')

        hashed = _HASHED_NAME.fullmatch(name.strip())
        other = _IN_BRACKETS.fullmatch(name.strip()) or _NAME_WITH_SUFFIX.fullmatch(name.strip())
        core = (hashed or other or [name, name])[1]
        # An old infotext may name a file that has been trained further since.
        if hashed and any(self._spelled(core)):
            here = next(found for found in self._spelled(core) if found)[0].full_name
            return UnknownNameError(
                f'there is no hypernetwork "{name}": {here} exists, but it is not the file '
                f"with that hash. Write {here} to use it anyway"
            )
        near = [
            self._short(n)
            for n in self._likeness.nearest(core)
            if compatible(n) != compatible(name)
        ]
        suggestion = f", did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
        return UnknownNameError(f'there is no hypernetwork "{name}"{suggestion}')

    def _short(self, full_name: str) -> str:
        stem = full_name.rpartition("/")[2]
        name = full_name if stem in self.ambiguous else stem
        if sendable(name) == name:
            return name
        return f"{sendable(name)} (rename this file: its name is not valid text)"
