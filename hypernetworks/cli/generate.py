"""The command ``generate``."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import pasted_path, say, warn
from ..ending import noticed
from ..errors import HypernetworkError
from ..progress import Progress
from .model import load_painter, need
from .outputs import refuse_existing
from .settings import STOPPING, add_prompt, add_settings, generation_of
from .values import integer, number

if TYPE_CHECKING:
    from ..hosts.diffusers import Generation

EXAMPLES = """examples:
  python -m hypernetworks generate "a red apple <hypernet:ink:0.8>" -o apple.png
  python -m hypernetworks generate "a (red:1.2) apple" --batch 4 --seed -1
  python -m hypernetworks list          the names that tags can use
"""


def add_generate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``generate``."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_prompt(
        parser,
        "picture.png",
        "the PNG file to write (default: picture.png); with --batch, files are numbered",
    )
    parser.add_argument(
        "--batch", type=integer(1, 64), default=1, help="number of images (default: 1)"
    )
    add_settings(parser)
    _add_passes(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace existing images")
    parser.set_defaults(command=_run)


def _add_passes(parser: argparse.ArgumentParser) -> None:
    """Add the options of image to image and of the hires pass."""
    parser.add_argument(
        "--image", type=pasted_path, help="begin with this image; it is cropped to the size"
    )
    parser.add_argument(
        "--strength",
        type=number(0, 1),
        default=0.75,
        help="how much of that image is changed, above 0 and at most 1 (default: 0.75)",
    )
    parser.add_argument(
        "--hires", type=number(1, 8), metavar="SCALE", help="enlarge the images in a second pass"
    )
    parser.add_argument(
        "--hires-strength",
        type=number(0, 1),
        default=0.7,
        help="how much of the enlarged image is changed (default: 0.7)",
    )
    parser.add_argument(
        "--hires-upscaler",
        default="Latent",
        help='"Latent", "Latent (bicubic)", "Latent (nearest-exact)", "Lanczos" or "Nearest" '
        "(default: Latent)",
    )


def _run(options: argparse.Namespace) -> int:
    need("diffusers", "transformers", "PIL")
    from ..hosts.diffusers import Hires, save_png

    hires = (
        None
        if options.hires is None
        else Hires(options.hires, options.hires_strength, options.hires_upscaler)
    )
    job = generation_of(options, options.batch)
    job = replace(job, image=options.image, strength=options.strength, hires=hires)
    targets = _targets(options.output, options.batch, options.overwrite)
    if sys.stderr is not None and sys.stderr.isatty():  # who looks on waits some seconds
        warn("hypernetworks: loading the model …")
    painter = load_painter(options)
    with noticed(STOPPING) as ending, Progress(_steps_of(job), "generating") as progress:

        def on_step(done: int, total: int) -> bool:
            progress.total = total  # some samplers ask the model twice for each step
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


def _steps_of(job: Generation) -> int:
    """Steps of all passes: an image to begin with, and a hires pass, leave out some."""
    first = job.steps if job.image is None else int(job.steps * job.strength)
    second = 0 if job.hires is None else job.hires.runs(job.steps)
    return max(1, first + second)


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
