"""The command ``generate``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import HypernetworkError
from ..progress import Progress
from .model import add_device, load_painter, need
from .values import integer, number, size


def add_generate(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``generate``."""
    parser.add_argument("prompt", help='such as "a red apple <hypernet:ink:0.8>"')
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("picture.png"), help="PNG; several get numbers"
    )
    parser.add_argument("--negative", default="", help="negative prompt")
    parser.add_argument("--steps", type=integer(1, 1000), default=20)
    parser.add_argument("--cfg", type=number(0, 100), default=None, help="guidance scale")
    parser.add_argument("--seed", type=integer(0, 2**63 - 1), default=0)
    parser.add_argument("--sampler", help='such as "Euler a"; left out, the model\'s own')
    parser.add_argument("--batch", type=integer(1, 64), default=1, help="number of pictures")
    parser.add_argument("--size", type=size, default=(None, None), help="such as 512 or 512x768")
    parser.add_argument(
        "--checkpoint", type=Path, help="SD1/SD2/SDXL .safetensors, or a diffusers folder"
    )
    parser.add_argument(
        "--hypernetworks", type=Path, action="append", default=[], metavar="DIR", help="repeatable"
    )
    parser.add_argument(
        "--prediction", choices=("epsilon", "v_prediction"), help="for SD2: epsilon for 512 models"
    )
    add_device(parser)
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    need("diffusers", "transformers", "PIL")
    from ..hosts.diffusers import Generation, save_png

    targets = _targets(options.output, options.batch)
    painter = load_painter(options)
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
    with Progress(options.steps, "generating") as progress:
        result = painter.paint(job, lambda done, _total: progress.update(done))
    for message in result.messages:
        print(f"hypernetworks: {message}", file=sys.stderr)
    for picture, target in zip(result.pictures, targets, strict=True):
        save_png(picture, target)
        print(target)
    return 0


def _targets(output: Path, batch: int) -> list[Path]:
    """One path per picture, checked before the work begins."""
    if output.suffix.lower() != ".png":
        raise HypernetworkError(
            f"-o {output}: pictures are written as PNG, use a name that ends in .png"
        )
    if not output.parent.is_dir() or output.is_dir():
        raise HypernetworkError(
            f"-o {output}: there is no folder {output.parent}, or it is a folder itself"
        )
    if batch == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{i + 1}{output.suffix}") for i in range(batch)]
