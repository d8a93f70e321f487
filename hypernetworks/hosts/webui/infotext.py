"""Handles a pasted infotext: the host's callback."""

from __future__ import annotations

import sys
from typing import Any

from ...console import say
from . import folders

_PROMPTS = ("Prompt", "Hires prompt", "Refiner prompt")


def on_pasted(_infotext: str, params: dict[str, Any]) -> None:
    """Callback ``on_infotext_pasted``: the prompts' tags name files that are here, as far as names
    or hashes tell.

    Args:
        params: the host's reading of the infotext; changed in place.
    """
    from ..restoring import Source, bring_back  # not when the webui starts: it takes time

    prompts = {key: params[key] for key in _PROMPTS if isinstance(params.get(key), str)}
    source = Source(
        folders.library(), folders.known_hash, folders.short_hash, folders.refresh, _tell
    )
    params.update(bring_back(prompts, params, source, "Prompt"))


def _tell(line: str) -> None:
    say(f"Hypernetworks: {line}", sys.stderr)
