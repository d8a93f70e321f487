"""Which networks of a library fit the loaded model, from the headers of their files alone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ..errors import HypernetworkError
from ..files.describing import read_description
from ..hosts.fit import check_widths
from ..library import Entry, Library
from ..patching import find_sites

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..patching import Site

MOST_REMEMBERED = 20_000


class Fitting:
    """Reads each file once, and again when it has changed. Used by the page's requests."""

    def __init__(self) -> None:
        self._widths: dict[tuple[str, int, int], tuple[int, ...] | str] = {}
        self._reading = threading.Lock()

    def problems(self, library: Library, pipeline: Any) -> dict[str, str]:
        """Why networks can't be used, by their full names; those that fit are not in it."""
        sites = find_sites(pipeline.unet)
        # Two windows that open at once would read every file twice.
        with self._reading:
            found = {e.full_name: self._problem(e, sites) for e in library.entries if e.is_text}
        return {name: problem for name, problem in found.items() if problem is not None}

    def _problem(self, entry: Entry, sites: Sequence[Site]) -> str | None:
        known = self._widths_of(entry)
        if isinstance(known, str):
            return known
        try:
            check_widths(known, sites)
        except HypernetworkError as error:
            return str(error)
        return None

    def _widths_of(self, entry: Entry) -> tuple[int, ...] | str:
        """Widths of a network, or why its file can't be read."""
        if entry.identity not in self._widths:
            # Files that change often must not fill the memory of a studio that runs for weeks.
            if len(self._widths) >= MOST_REMEMBERED:
                self._widths.clear()
            try:
                self._widths[entry.identity] = read_description(entry.path).widths
            except HypernetworkError as error:
                self._widths[entry.identity] = str(error)
        return self._widths[entry.identity]
