"""The files that a command reads: those given, those in folders, those that match patterns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import HypernetworkError


def expanded(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Replace folders by the networks in them, and patterns by the files that match.

    The shells of Windows leave patterns to the programs.

    Returns:
        Each file with its path relative to the given folder, or its name if it was given itself.

    Raises:
        HypernetworkError: a folder has no networks, or nothing matches a pattern.
    """
    found: list[tuple[Path, Path]] = []
    for path in paths:
        if is_folder(path):
            inside = _networks_in(path)
            if not inside:
                raise HypernetworkError(
                    f"{path} contains no hypernetwork file: name another folder"
                )
            found += [(p, p.relative_to(path)) for p in inside]
        elif is_pattern(path):
            matching = sorted(path.parent.glob(path.name))
            if not matching:
                raise HypernetworkError(f"no file matches {path}: check the folder and the pattern")
            # A pattern may match folders too, such as models/*.
            files = [p for m in matching for p in (_networks_in(m) if is_folder(m) else [m])]
            found += [(p, p.relative_to(path.parent)) for p in files]
        else:
            found.append((path, Path(path.name)))

    return found


def is_pattern(path: Path) -> bool:
    """Whether it is a pattern such as ``*.pt``, and not a file with brackets in its name."""
    if not set("*?[") & set(path.name):
        return False
    try:
        return not path.exists()
    except OSError:  # too long, or in a folder that may not be opened: reading it says so
        return False


def is_folder(path: Path) -> bool:
    """Whether it is a folder; a path that the system refuses is none, and reading it says why."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _networks_in(folder: Path) -> list[Path]:
    from ..files import SUFFIXES

    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
