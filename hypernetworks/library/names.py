"""Which file a name means."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

from ..errors import AmbiguousNameError, UnknownNameError
from .entry import Entry

_HASHED_NAME = re.compile(r"(.+)\(([0-9a-f]{4,64})\)")

LONGEST_NAME = 200
"""Characters of a name that is compared with all others; no file system allows many more."""


class Names:
    """The entries of one scan, found by name. Never changes; its tables are made when they are first needed.

    Args:
        entries: in the order in which they are listed.
    """

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self.entries = entries

    @cached_property
    def ambiguous(self) -> frozenset[str]:
        """Stems that several files share."""
        return frozenset(
            name for name, count in Counter(e.name for e in self.entries).items() if count > 1
        )

    @cached_property
    def _exact(self) -> dict[str, list[Entry]]:
        return self._by(str)

    @cached_property
    def _folded(self) -> dict[str, list[Entry]]:
        return self._by(str.casefold)

    def _by(self, fold: Callable[[str], str]) -> dict[str, list[Entry]]:
        table: dict[str, list[Entry]] = {}
        for entry in self.entries:
            for name in {fold(entry.name), fold(entry.full_name)}:
                table.setdefault(name, []).append(entry)
        return table

    def find(self, name: str) -> Entry | None:
        """The file that a tag's name means: exact, then case-insensitive, then as ``name(hash)``; or ``None``.

        Raises:
            AmbiguousNameError: with the full names to choose from.
        """
        for wanted in _spellings(name):
            for table, fold in ((self._exact, str), (self._folded, str.casefold)):
                entries = table.get(fold(wanted), [])
                exact = [e for e in entries if fold(e.full_name) == fold(wanted)]
                if len(entries) == 1 or len(exact) == 1:
                    return (entries if len(entries) == 1 else exact)[0]
                if entries:
                    raise AmbiguousNameError(
                        f'the name "{name}" is ambiguous{_alternatives(entries)}'
                    )
        return None

    def unknown(self, name: str, suggest: bool = True) -> UnknownNameError:
        """The error for a name that no file has, with the nearest ones that are there unless it is very long."""
        if not suggest or len(name) > LONGEST_NAME:
            return UnknownNameError(f'there is no hypernetwork "{name}"')

        names = {e.name.lower(): e.name for e in self.entries}
        near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
        suggestion = f", did you mean {' or '.join(names[n] for n in near)}?" if near else ""
        return UnknownNameError(f'there is no hypernetwork "{name}"{suggestion}')


def _spellings(name: str) -> list[str]:
    hashed = _HASHED_NAME.fullmatch(name.strip())
    return list(dict.fromkeys([name, name.strip(), *([hashed[1].strip()] if hashed else [])]))


def _alternatives(entries: Sequence[Entry]) -> str:
    names = [e.full_name for e in entries]
    if len(set(names)) == len(names):
        return f", write {' or '.join(names)}"
    return f": rename all but one of {', '.join(str(e.path) for e in entries)}"
