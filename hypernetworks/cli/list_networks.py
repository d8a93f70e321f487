"""The command ``list``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import pasted_path, say
from ..errors import HypernetworkError, printable, sendable
from .model import usual_folder

if TYPE_CHECKING:
    from ..library import Entry


def add_list(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``list``."""
    parser.add_argument(
        "folders",
        type=pasted_path,
        nargs="*",
        metavar="DIR",
        help="folders of hypernetworks (default: ~/hypernetworks, and those of the miniature)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from ..library import Library

    for folder in options.folders:
        if not folder.is_dir():
            raise HypernetworkError(f"{folder}: there is no such folder")
    library = Library(options.folders or _usual_folders())
    found = [(library.name_of(entry), entry) for entry in library.entries if entry.is_text]
    rows = [_row(name, entry) for name, entry in found]
    for entry in library.entries:
        if not entry.is_text:
            left_out = f"{entry.path} is left out: its name is not valid text here. Rename it"
            say(f"hypernetworks: {sendable(left_out)}", sys.stderr)

    if options.json:
        say(json.dumps(rows, indent=1))
    elif rows:
        for line in _lines(rows):
            say(line)
    else:
        folders = ", ".join(str(folder) for folder in library.folders)
        say(f"hypernetworks: no hypernetwork in {folders}", sys.stderr)
    return 2 if any("error" in row for row in rows) else 0


def _usual_folders() -> list[Path]:
    """The user's own, and that of the networks that ship."""
    return [
        usual_folder(),
        Path(__file__).parents[1] / "miniature" / "networks",
    ]


def _row(name: str, entry: Entry) -> dict[str, str | int | list[int]]:
    """What a tag calls a network, and what its file says of itself; no tensor is read."""
    from ..engine.families import family_label
    from ..files.describing import read_description

    row: dict[str, str | int | list[int]] = {"name": name, "path": str(entry.path.resolve())}
    try:
        found = read_description(entry.path)
    except HypernetworkError as error:
        return {**row, "error": str(error)}
    return {
        **row,
        "family": family_label(found.widths),
        "widths": list(found.widths),
        "layers": ", ".join(f"{part:g}" for part in found.structure.layer_structure),
        "activation": found.structure.activation,
        "bytes": entry.size,
    }


def _lines(rows: list[dict[str, str | int | list[int]]]) -> Iterator[str]:
    """A line for each network, in columns; names of files may contain any characters."""
    names = [printable(str(row["name"]), 1000) for row in rows]
    wide = min(max(map(len, names)), 40)
    for row, name in zip(rows, names, strict=True):
        name = f"{name:<{wide}}"
        if "error" in row:
            yield f"{name}  can't be used: {printable(str(row['error']), 1000)}"
            continue
        size = f"{int(row['bytes']) / 1e6:.1f} MB"  # type: ignore[arg-type]
        layers = f"{row['layers']} {row['activation']}"
        path = printable(str(row["path"]), 4096)
        yield f"{name}  {row['family']:<8}  {size:>9}  {layers:<18}  {path}"
