"""The command ``extract``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import pasted_path, say
from ..errors import HypernetworkError
from ..progress import Progress
from .merge import write_made
from .outputs import add_output, refuse_existing

if TYPE_CHECKING:
    from ..conversion.extracting import Extracted


def add_extract(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``extract``."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--from-lora", type=pasted_path, metavar="LORA", help="a .safetensors file; needs --base"
    )
    source.add_argument(
        "--from-checkpoints",
        type=pasted_path,
        nargs=2,
        metavar=("TUNED", "BASE"),
        help="a fine-tuned checkpoint, and the one that it was made from",
    )
    parser.add_argument(
        "--base", type=pasted_path, help="the checkpoint that the LoRA was trained on"
    )
    add_output(parser)
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    refuse_existing([options.output], overwrite=options.overwrite)
    if options.output.suffix not in (".pt", ".safetensors"):
        raise HypernetworkError(f"{options.output}: choose a name that ends in .pt or .safetensors")
    if (options.from_lora is None) != (options.base is None):
        raise HypernetworkError(
            "--from-lora and --base belong together: name the LoRA, and the checkpoint it was "
            "trained on"
        )

    found = _extracted(options)
    # the first line of all, before anyone is glad about the file
    say(found.verdict)
    write_made(found.network, options.output, options.dtype)
    say(str(options.output))
    return 0


def _extracted(options: argparse.Namespace) -> Extracted:
    from ..conversion import Base
    from ..conversion.extracting import from_checkpoints, from_lora

    name: str = options.output.stem
    tuned, base_path = options.from_checkpoints or (options.from_lora, options.base)
    with Base(base_path) as base, Progress(len(base.layers), "extracting") as progress:

        def report(done: int, _total: int) -> None:
            progress.update(done)

        if options.from_lora is not None:
            return from_lora(name, Path(tuned), base, on_progress=report)
        with Base(tuned) as other:
            return from_checkpoints(name, other, base, on_progress=report)
