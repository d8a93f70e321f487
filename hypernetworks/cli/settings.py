"""The options of one generation, shared by the commands that generate images."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import pasted_path
from ..errors import HypernetworkError, sendable
from .model import add_checkpoint, add_device, add_prediction, add_vae
from .values import integer, number, size

if TYPE_CHECKING:
    from ..hosts.diffusers import Generation


STOPPING = "Stopping after this step; Ctrl+C again ends at once"


def add_prompt(parser: argparse.ArgumentParser, output: str, what: str) -> None:
    """Add the prompt, and the file to write.

    Args:
        output: its usual name.
        what: the help of the option for another name.
    """
    parser.add_argument("prompt", help='prompt, such as "a red apple <hypernet:ink:0.8>"')
    parser.add_argument("-o", "--output", type=pasted_path, default=Path(output), help=what)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options for the settings, the model and the networks."""
    parser.add_argument("--negative", default="", help="negative prompt")
    parser.add_argument(
        "--steps", type=integer(1, 1000), default=20, help="sampling steps (default: 20)"
    )
    parser.add_argument(
        "--cfg", type=number(0, 100), help="guidance scale (default: the model's own)"
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, help="seed (default: 0), or -1 for a random one"
    )
    parser.add_argument("--sampler", help='name, such as "Euler a" (default: the model\'s own)')
    parser.add_argument(
        "--size",
        type=size,
        default=(None, None),
        help="512, or width and height as 512x768 (default: the model's own)",
    )

    add_checkpoint(parser)
    add_vae(parser)
    parser.add_argument(
        "--hypernetworks",
        type=pasted_path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of hypernetworks; repeat the option for more folders",
    )
    add_prediction(parser)
    add_device(parser)


def _seed(text: str) -> int:
    """A seed; -1 for a random one, as in webuis."""
    return random.randrange(2**32) if text.strip() == "-1" else integer(0, 2**63 - 1)(text)


def generation_of(options: argparse.Namespace, batch: int = 1) -> Generation:
    """The job that the options describe.

    Raises:
        HypernetworkError: a prompt is no text that a PNG can store.
    """
    from ..hosts.diffusers import Generation

    # A terminal in another encoding gives bytes that no PNG can store as text.
    for text in (options.prompt, options.negative):
        if sendable(text) != text:
            raise HypernetworkError(
                f"the prompt {sendable(text)} isn't valid text: write it in UTF-8"
            )

    return Generation(
        prompt=options.prompt,
        negative=options.negative,
        steps=options.steps,
        cfg=options.cfg,
        seed=options.seed,
        batch=batch,
        width=options.size[0],
        height=options.size[1],
        sampler=options.sampler,
    )
