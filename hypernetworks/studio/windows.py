"""The windows of a studio: which page a session of gradio belongs to, and what its gallery shows.

A page names itself, and keeps its name when it is loaded again; gradio's session is a new one then.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..hosts.diffusers.passes import UPSCALERS
from .kept import Kept
from .ranges import RANGES

MOST_WINDOWS = 200
"""Windows that are remembered; the one that was quiet for the longest time is forgotten first."""
MOST_KEPT = 40
"""The most images that a window's gallery shows."""
_NAME = re.compile(r"[A-Za-z0-9-]{16,64}")
VERSION = "1 "
"""Begins what a page saves; other versions are not read."""


@dataclass
class _Window:
    kept: list[Kept] = field(default_factory=list)


class Windows:
    """What outlives a reload of a page. Written by jobs and by the page's events."""

    def __init__(self) -> None:
        self._names: OrderedDict[str, str] = OrderedDict()
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def open(self, session: str, name: object) -> None:
        """Record which window a session is; a name that no page would give itself is ignored."""
        if isinstance(name, str) and _NAME.fullmatch(name):
            self._names[session] = name
            # Pages that were closed say no goodbye: the oldest are forgotten.
            while len(self._names) > MOST_WINDOWS:
                self._names.popitem(last=False)

    def of(self, session: object) -> str:
        """The window of a session: its own name where it has not said another."""
        return self._names.get(str(session), str(session))

    def keep(self, window: str, pictures: Sequence[Kept]) -> list[Kept]:
        """Add images to a window's gallery, the newest first; returns all of them."""
        found = self._windows.setdefault(window, _Window())
        found.kept = [*pictures, *found.kept][:MOST_KEPT]
        # So that the window that is forgotten first is the one that was quiet for longest.
        self._windows.move_to_end(window)
        while len(self._windows) > MOST_WINDOWS:
            self._windows.popitem(last=False)
        return found.kept

    def kept(self, window: str) -> list[Kept]:
        """The images of a window's gallery."""
        return self._windows[window].kept if window in self._windows else []


def saved_state(text: object) -> dict[str, Any]:
    """What a page has saved of itself: its name, its fields by name, its model. Empty where it
    isn't that.
    """
    if not isinstance(text, str) or not text.startswith(VERSION):
        return {}
    try:
        found = json.loads(text[len(VERSION) :])
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


OF_MODEL = ("cfg", "sampler", "width", "height")
"""Fields that are not restored when another model is loaded."""


def restored_fields(
    state: dict[str, Any], model: str, samplers: Sequence[str]
) -> dict[str, str | float]:
    """Values of the fields that a page had before it was loaded again; what can't be used is left
    out.
    """
    given = state.get("fields")
    if not isinstance(given, dict):
        return {}

    found: dict[str, str | float] = {}
    for name in ("prompt", "negative"):
        if isinstance(given.get(name), str):
            found[name] = given[name][:50_000]
    for name, allowed in RANGES.items():
        value = given.get(name)
        # To Python, True is a number.
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if value in allowed or (name == "seed" and value == -1):
            found[name] = value
    if given.get("sampler") in samplers:
        found["sampler"] = given["sampler"]
    if given.get("upscaler") in UPSCALERS:
        found["upscaler"] = given["upscaler"]
    if isinstance(given.get("hires"), bool):
        found["hires"] = given["hires"]

    # A size or sampler of one model may be useless, or far too slow, for another.
    if state.get("model") != model:
        found = {name: value for name, value in found.items() if name not in OF_MODEL}
    return found
