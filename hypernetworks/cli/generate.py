"""The command ``generate``."""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path

from ..console import pasted_path, say
from ..ending import noticed
from ..errors import HypernetworkError, sendable
from ..progress import Progress
from .model import add_device, load_painter, need
from .outputs import refuse_existing
from .values import integer, number, size

EXAMPLES = """examples:
  python -m hypernetworks generate "a red apple <hypernet:ink:0.8>" -o apple.png
  python -m hypernetworks generate "a (red:1.2) apple" --batch 4 --seed -1 --checkpoint model.safetensors
  python -m hypernetworks list          the names that tags can use
"""
STOPPING = "Stopping after this step; Ctrl+C again ends at once"


def add_generate(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``generate``."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("prompt", help='such as "a red apple <hypernet:ink:0.8>"')
    parser.add_argument(
        "-o",
        "--output",
        type=pasted_path,
        default=Path("picture.png"),
        help="PNG file; several images are numbered (default: picture.png)",
    )
    parser.add_argument("--negative", default="", help="negative prompt")
    parser.add_argument(
        "--steps", type=integer(1, 1000), default=20, help="sampling steps (default: 20)"
    )
    parser.add_argument(
        "--cfg", type=number(0, 100), default=None, help="guidance scale (default: the model's)"
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, help="of the first image; -1: random (default: 0)"
    )
    parser.add_argument("--sampler", help='such as "Euler a" (default: the model\'s own)')
    parser.add_argument(
        "--batch", type=integer(1, 64), default=1, help="number of images (default: 1)"
    )
    parser.add_argument("--size", type=size, default=(None, None), help="such as 512 or 512x768")
    parser.add_argument(
        "--checkpoint", type=pasted_path, help="SD1/SD2/SDXL .safetensors, or a diffusers folder"
    )
    parser.add_argument(
        "--hypernetworks",
        type=pasted_path,
        action="append",
        default=[],
        metavar="DIR",
        help="repeatable",
    )
    parser.add_argument(
        "--prediction", choices=("epsilon", "v_prediction"), help="for SD2: epsilon for 512 models"
    )

    add_device(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace existing images")
    parser.set_defaults(command=_run)


def _seed(text: str) -> int:
    """A seed; -1 for a random seed, as in webuis."""
    return random.randrange(2**32) if text.strip() == "-1" else integer(0, 2**63 - 1)(text)


def _run(options: argparse.Namespace) -> int:
    need("diffusers", "transformers", "PIL")
    for text in (options.prompt, options.negative):
        if sendable(text) != text:
            raise HypernetworkError(
                f"the prompt {sendable(text)} is not valid text: write it in UTF-8"
            )
    targets = _targets(options.output, options.batch, options.overwrite)
    if sys.stderr is not None and sys.stderr.isatty():  # who looks on waits some seconds
        say("hypernetworks: loading the model …", sys.stderr)
    painter = load_painter(options)
    from ..hosts.diffusers import Generation, save_png

    job = Generation(
        prompt=options.prompt,
        negative=options.negative,
        steps=options.steps,
        cfg=options.cfg,
        seed=options.seed,
        batch=options.batch,
        width=options.size[0],
        height=options.size[1],
        sampler=options.sampler,
    )
    with noticed(STOPPING) as ending, Progress(options.steps, "generating") as progress:

        def on_step(done: int, _total: int) -> bool:
            progress.update(done)
            return not ending

        result = painter.generate(job, on_step)
        is_stopped = bool(ending)

    for message in result.messages:
        say(f"hypernetworks: {message}", sys.stderr)
    for picture, target in zip(result.pictures, targets, strict=True):
        save_png(picture, target)
        say(str(target.resolve()))
    if is_stopped:
        say("hypernetworks: interrupted; the unfinished image is saved", sys.stderr)
    return 130 if is_stopped else 0


def _targets(output: Path, batch: int, overwrite: bool) -> list[Path]:
    """One path per image, checked before the work begins."""
    if output.suffix.lower() != ".png":
        raise HypernetworkError(
            f"-o {output}: images are saved as PNG: use a name that ends in .png"
        )
    if not output.parent.is_dir() or output.is_dir():
        raise HypernetworkError(
            f"-o {output}: there is no folder {output.parent}, or it is a folder itself"
        )

    several = [output.with_name(f"{output.stem}-{i + 1}{output.suffix}") for i in range(batch)]
    targets = [output] if batch == 1 else several
    refuse_existing(targets, overwrite=overwrite)
    if not os.access(output.parent, os.W_OK):
        raise HypernetworkError(f"-o {output}: no permission to write in {output.parent}")

    return targets
