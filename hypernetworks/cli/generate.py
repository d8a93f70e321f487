"""The command ``generate``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..console import pasted_path, say, warn
from ..ending import noticed
from ..errors import HypernetworkError
from ..progress import Progress
from .model import load_painter, need
from .outputs import refuse_existing
from .settings import add_settings, generation_of
from .values import integer

EXAMPLES = """examples:
  python -m hypernetworks generate "a red apple <hypernet:ink:0.8>" -o apple.png
  python -m hypernetworks generate "a (red:1.2) apple" --batch 4 --seed -1
  python -m hypernetworks list          the names that tags can use
"""
STOPPING = "Stopping after this step; Ctrl+C again ends at once"


def add_generate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``generate``."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("prompt", help='prompt, such as "a red apple <hypernet:ink:0.8>"')
    parser.add_argument(
        "-o",
        "--output",
        type=pasted_path,
        default=Path("picture.png"),
        help="the PNG file to write (default: picture.png); with --batch, files are numbered",
    )
    parser.add_argument(
        "--batch", type=integer(1, 64), default=1, help="number of images (default: 1)"
    )
    add_settings(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace existing images")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    need("diffusers", "transformers", "PIL")
    job = generation_of(options, options.batch)
    targets = _targets(options.output, options.batch, options.overwrite)
    if sys.stderr is not None and sys.stderr.isatty():  # who looks on waits some seconds
        warn("hypernetworks: loading the model …")
    painter = load_painter(options)
    from ..hosts.diffusers import save_png

    with noticed(STOPPING) as ending, Progress(options.steps, "generating") as progress:

        def on_step(done: int, _total: int) -> bool:
            progress.update(done)
            return not ending

        result = painter.generate(job, on_step)
        is_stopped = bool(ending)

    for message in result.messages:
        warn(f"hypernetworks: {message}")
    for picture, target in zip(result.pictures, targets, strict=True):
        save_png(picture, target)
        say(str(target.resolve()))
    if is_stopped:
        warn("hypernetworks: interrupted; the unfinished image is saved")
    return 130 if is_stopped else 0


def _targets(output: Path, batch: int, overwrite: bool) -> list[Path]:
    """A path for each image, checked before the model is loaded."""
    if output.suffix.lower() != ".png":
        raise HypernetworkError(
            f"-o {output}: images are saved as PNG: choose a name that ends in .png"
        )
    if not output.parent.is_dir() or output.is_dir():
        raise HypernetworkError(
            f"-o {output} can't be written: name a PNG file in an existing folder"
        )

    # Counted from 1, as people count; the order is that of the seeds.
    several = [output.with_name(f"{output.stem}-{i + 1}{output.suffix}") for i in range(batch)]
    targets = [output] if batch == 1 else several
    refuse_existing(targets, overwrite=overwrite)
    if not os.access(output.parent, os.W_OK):
        raise HypernetworkError(
            f"-o {output}: you have no permission to write to {output.parent}: choose another "
            "folder"
        )

    return targets
