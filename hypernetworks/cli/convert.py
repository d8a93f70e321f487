"""The command ``convert``."""

from __future__ import annotations

import argparse

from ..console import pasted_path, say
from ..errors import HypernetworkError


def add_convert(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``convert``."""
    parser.add_argument("source", type=pasted_path, metavar="SRC")
    parser.add_argument("target", type=pasted_path, metavar="DST", help=".pt or .safetensors")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from ..files import read, write

    if options.target.exists() and not options.overwrite:
        raise HypernetworkError(f"{options.target} exists: choose another name, or add --overwrite")
    write(read(options.source), options.target)
    say(str(options.target))
    return 0
