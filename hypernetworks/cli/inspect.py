"""The command ``inspect``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..console import pasted_path, say
from ..errors import HypernetworkError


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``inspect``."""
    parser.add_argument(
        "files",
        type=pasted_path,
        nargs="+",
        metavar="FILE",
        help="files, folders, or patterns such as *.pt",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from ..files import read
    from ..library import inspect

    reports, code = [], 0
    for path in expanded(options.files):
        try:
            reports.append(inspect(read(path), path).as_dict())
        except HypernetworkError as error:
            say(f"hypernetworks: {error}", sys.stderr)
            code = 2
    if options.json:
        say(json.dumps(reports, indent=1))
    else:
        say("\n\n".join(_report(report) for report in reports))
    return code


def expanded(paths: Sequence[Path]) -> list[Path]:
    """Folders as the files in them, and patterns as what they match: the shells of Windows leave that to programs."""
    from ..files import SUFFIXES

    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise HypernetworkError(f"{path}: this folder contains no hypernetwork file")
            found += inside
        elif set("*?[") & set(path.name) and not path.exists():
            matching = sorted(path.parent.glob(path.name))
            if not matching:
                raise HypernetworkError(f"{path}: nothing matches")
            found += matching
        else:
            found.append(path)
    return found


def _report(report: dict) -> str:  # type: ignore[type-arg]
    provenance = report["provenance"]
    dropout = (
        "none" if not any(report["dropout"]) else ", ".join(f"{p:g}" for p in report["dropout"])
    )
    trained = provenance["checkpoint_name"] or provenance["checkpoint_hash"] or "unknown"
    lines = [
        f"{report['name']}  ({report['path']})",
        f"  model family     {report['family']}",
        f"  widths           {', '.join(map(str, report['widths']))}",
        f"  layer structure  {', '.join(f'{m:g}' for m in report['layer_structure'])}",
        f"  activation       {report['activation']}"
        + (
            " (after the last layer too)"
            if report["activate_output"] and report["activation"] != "linear"
            else ""
        ),
        f"  layer norm       {'yes' if report['layer_norm'] else 'no'}",
        f"  dropout          {dropout}",
        f"  parameters       {report['parameters']:,} ({report['dtype']}, {report['bytes'] / 2**20:.1f} MiB)",
        f'  trained          {provenance["step"]:,} steps on {trained}, named "{provenance["name"] or ""}"',
        "  norms            " + f"\n{' ' * 19}".join(_norms(n) for n in report["norms"]),
        *(f"  warning          {warning}" for warning in report["warnings"]),
    ]
    return "\n".join(
        "".join(c if c.isprintable() or c == "\n" else "?" for c in line) for line in lines
    )


def _norms(norms: dict) -> str:  # type: ignore[type-arg]
    return f"{norms['width']:>5} {norms['side']}  " + "  ".join(
        f"{norm:.3g}" for norm in norms["norms"]
    )
