"""From what a node is given to networks: names, files, multipliers, and messages instead of
errors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import folder_paths
import torch

from ...engine.multiplier import Multiplier, Schedule
from ...engine.network import Hypernetwork
from ...errors import HypernetworkError, sendable
from ...library import Entry, Library
from ...patching import find_sites
from ..fit import check_fit
from .sampling import Applied

NONE = "None"
"""First choice of a list that may be left empty."""
_LIBRARY = Library(())


def library() -> Library:
    """The networks in ComfyUI's ``hypernetworks`` folders, ``extra_model_paths.yaml`` included."""
    _LIBRARY.look_in([Path(path) for path in folder_paths.get_folder_paths("hypernetworks")])
    return _LIBRARY


def names() -> list[str]:
    """All files, as lists show them: with folder and suffix, which never changes its meaning."""
    return [file_name(entry) for entry in library().scan() if entry.is_text]


def file_name(entry: Entry) -> str:
    """``folder/stem.suffix``."""
    return f"{entry.full_name}{entry.path.suffix}"


def find(name: str) -> Entry:
    """The file that a list or a tag names. Raises as :meth:`Library.find` does."""
    found = library()
    for entry in found.scan():
        if file_name(entry) == name.replace("\\", "/"):
            return entry
    return found.find(name)


def load(entry: Entry) -> Hypernetwork:
    """The network of a file, as :meth:`Library.load` gives it.

    Nodes run in inference mode, and what is made there can't be used elsewhere.
    """
    with torch.inference_mode(False):
        return library().load(entry)


def fingerprint(named: Iterable[object]) -> str:
    """Changes when the content of one of these files does, and only then: a node that returns it
    runs again exactly if a file was replaced.
    """
    parts = []
    for name in named:
        if isinstance(name, str) and name != NONE:
            # A missing file has a fingerprint, too: the node runs again when it appears.
            try:
                parts.append(library().hashes.sha256(find(name)))
            except (HypernetworkError, OSError):
                parts.append(f"{name} is missing")
    return " ".join(parts)


def fingerprint_of_all() -> str:
    """The same for a node whose text isn't known yet, and may name any file."""
    return repr([entry.identity for entry in library().scan()])


def checker(model: Any) -> Callable[[Hypernetwork, Multiplier], None]:
    """Raises where a network can't be applied to a model patcher's UNet."""
    sites = find_sites(model.model.diffusion_model)
    return lambda network, multiplier: check_fit(network, multiplier, sites)


def resolve(
    name: str, multiplier: Multiplier, model: Any, tell: Callable[[str], object]
) -> list[Applied]:
    """The network of a file, or none and a message that says why.

    Args:
        name: as lists show it; ``"None"`` is no network.
        multiplier: how strong.
        model: a model patcher that it must fit; ``None`` where that isn't known yet.
        tell: takes a line for the user.
    """
    if name in ("", NONE):
        return []

    try:
        network = load(find(name))
        if model is not None:
            checker(model)(network, multiplier)
        return [Applied(network, multiplier)]
    except HypernetworkError as error:
        tell(sendable(f"{name}: {error} (the image is generated without it)"))
        return []


def multiplier_of(
    strength: float,
    schedule: Multiplier | None = None,
    *,
    blocks: str = "ALL",
    attention: str = "both",
    key: float = 1.0,
    value: float = 1.0,
) -> Multiplier:
    """A multiplier from a node's inputs; a connected schedule is scaled by the strength.

    Raises:
        MultiplierError: block factors that can't be understood.
    """
    base = schedule or Multiplier.of(1.0)
    # Scaled here and not later: a schedule that is connected to two nodes must stay as it is.
    points = tuple((v * strength, position) for v, position in base.strength.points)
    read = Multiplier.parse(f"1:lbw={blocks}") if blocks.strip() else Multiplier.of(1.0)

    return replace(
        base,
        strength=Schedule(points, base.strength.in_steps),
        blocks=None if read.blocks == "ALL" else read.blocks,
        attention=attention,
        key=key,
        value=value,
    )


class Messages:
    """Lines for the user of one node: shown on the node, in the console, and in the queue's
    history.

    Args:
        node: its id.
    """

    def __init__(self, node: str | None) -> None:
        self._node = node
        self.lines: list[str] = []

    def tell(self, line: str) -> None:
        """Add a line; the same line once."""
        if line in self.lines:
            return
        self.lines.append(line)
        logging.warning("hypernetworks: %s", line)
        self._show()

    def _show(self) -> None:
        from server import PromptServer

        # Not every version can write on a node; the lines are in the console and history anyway.
        show = getattr(getattr(PromptServer, "instance", None), "send_progress_text", None)
        if show is not None and self._node is not None:
            show("\n".join(self.lines), self._node)

    @property
    def ui(self) -> dict[str, list[str]] | None:
        """What the node hands to the page besides its outputs."""
        return {"text": list(self.lines)} if self.lines else None
