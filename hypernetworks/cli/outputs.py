"""The files that a command writes."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from ..console import pasted_path
from ..errors import HypernetworkError


def refuse_existing(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Check, before anything is written, that no file would be replaced without ``--overwrite``.

    Raises:
        HypernetworkError: one exists; the message names the first.
    """
    there = None if overwrite else next((path for path in paths if path.exists()), None)
    if there is not None:
        raise HypernetworkError(f"{there} exists: choose another name, or add --overwrite")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of commands that write one network."""
    parser.add_argument(
        "-o", "--output", type=pasted_path, required=True, help="the new .pt or .safetensors file"
    )
    parser.add_argument(
        "--dtype",
        choices=("fp16", "fp32", "bf16"),
        default="fp16",
        help="type of the weights (default: fp16)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
