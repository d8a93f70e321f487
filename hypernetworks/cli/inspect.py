"""The command ``inspect``."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from ..console import pasted_path, say, warn
from ..errors import HypernetworkError
from .sources import expanded

if TYPE_CHECKING:
    from ..library import Inspection


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``inspect``."""
    parser.add_argument(
        "files",
        type=pasted_path,
        nargs="+",
        metavar="FILE",
        help="files, folders, or patterns such as *.pt",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of text")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from ..files import read
    from ..library import inspect

    # A file that can't be read doesn't keep the others from being shown.
    reports: list[Inspection] = []
    code = 0
    for path, _ in expanded(options.files):
        try:
            reports.append(inspect(read(path), path))
        except HypernetworkError as error:
            warn(f"hypernetworks: {error}")
            code = 2

    if options.json:
        say(json.dumps([report.as_dict() for report in reports], indent=1))
    else:
        say("\n\n".join(_report(report) for report in reports))
    return code


def _report(found: Inspection) -> str:
    from ..library import norm_rows, report_rows

    rows = [*report_rows(found).items()]
    rows += [
        ("" if index else "Norms", f"{label:<11}  {'  '.join(norms)}")
        for index, (label, norms) in enumerate(norm_rows(found).items())
    ]
    rows += [("Warning", warning) for warning in found.warnings]

    # A file can contain any text, control characters that manipulate the terminal included.
    lines = [f"{found.name}  ({found.path})", *(f"  {label:<20} {text}" for label, text in rows)]
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)
