"""The files that a command is given: folders and patterns as what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import HypernetworkError


def expanded(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Folders as the networks in them, and patterns as what they match: the shells of Windows leave
    that to programs.

    Returns:
        Each file with its path relative to the folder that was given; of a single file, its name.
    """
    found: list[tuple[Path, Path]] = []
    for path in paths:
        if path.is_dir():
            inside = _networks_in(path)
            if not inside:
                raise HypernetworkError(f"{path}: this folder contains no hypernetwork file")
            found += [(p, p.relative_to(path)) for p in inside]
        elif is_pattern(path):
            matching = sorted(path.parent.glob(path.name))
            if not matching:
                raise HypernetworkError(f"{path}: nothing matches")
            files = [p for m in matching for p in (_networks_in(m) if m.is_dir() else [m])]
            found += [(p, p.relative_to(path.parent)) for p in files]
        else:
            found.append((path, Path(path.name)))
    return found


def is_pattern(path: Path) -> bool:
    """Whether it is one such as ``*.pt``. A file may have brackets in its name."""
    return bool(set("*?[") & set(path.name)) and not path.exists()


def _networks_in(folder: Path) -> list[Path]:
    from ..files import SUFFIXES

    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
