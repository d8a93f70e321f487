"""The command ``bake``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..console import say
from ..progress import Progress
from .outputs import refuse_existing
from .to_lora import read_weighted


def add_bake(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bake``."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="a .safetensors file, or a diffusers folder",
    )
    parser.add_argument(
        "networks",
        nargs="+",
        metavar="NETWORK",
        help="linear networks in the order of application: FILE or FILE:MULTIPLIER",
    )

    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the new .safetensors file or folder"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from ..conversion import Base, bake

    # Before the networks are read: a refusal should not take seconds.
    refuse_existing([options.output], overwrite=options.overwrite)
    networks = [read_weighted(text) for text in options.networks]
    with Base(options.checkpoint) as base:
        total = sum(file.size for file in base.files) >> 20  # in MiB, as the bar counts them
        with Progress(total, "baking, MiB") as progress:
            changed = bake(
                base,
                networks,
                options.output,
                on_progress=lambda done, _total: progress.update(done >> 20),
            )

    say(f"{changed} tensors changed")
    say(str(options.output))
    return 0
