"""What the panel is told about the names in the prompt before an image is generated."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import HypernetworkError
from ...library.sidecars import read_sidecars
from . import folders, settings
from .cards_tab.cards import UNKNOWN, facts, loaded_family, problem_of

MOST_NAMES = 64
"""Names that one question may have; each unknown one is compared with the whole library."""


def check(names: Iterable[str]) -> dict[str, Any]:
    """What is known about each name, without loading a network or a model.

    The name is looked up as a tag's is, so the panel and the generation can't disagree about it.

    Returns:
        ``loaded``: the family of the loaded model, or ``None``; ``networks``: for each name its
        ``problem`` (a sentence, or ``None``), ``family``, and ``preview`` (the time of its last
        change in nanoseconds, or ``None`` where there is none).
    """
    loaded = loaded_family()
    asked = list(dict.fromkeys(names))[:MOST_NAMES]
    return {"loaded": loaded, "networks": {name: _about(name, loaded) for name in asked}}


def _about(name: str, loaded: str | None) -> dict[str, Any]:
    try:
        entry = folders.library().find(name)
    except HypernetworkError as error:
        return {"problem": str(error), "family": None, "preview": None}

    beside = read_sidecars(entry)
    known = facts(entry)
    family = known.family if known.family != UNKNOWN else beside.base_model or UNKNOWN
    return {
        "problem": problem_of(known, family, None if settings.force_family() else loaded),
        "family": None if family == UNKNOWN else family,
        "preview": _changed(beside.preview),
    }


def _changed(preview: Path | None) -> int | None:
    """The time of a preview's last change: its address holds it, so that a browser may keep it."""
    try:
        return None if preview is None else int(preview.stat().st_mtime_ns)
    except OSError:
        return None
