"""The command ``studio``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import HypernetworkError
from .model import add_device, load_painter, need
from .values import integer


def add_studio(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``studio``."""
    parser.add_argument("--port", type=integer(1, 65535), default=7870)
    parser.add_argument("--no-browser", action="store_true", help="don't open a browser")
    parser.add_argument("--listen", action="store_true", help="let other machines use it, too")
    entry = parser.add_mutually_exclusive_group()
    entry.add_argument(
        "--password",
        default=os.environ.get("HYPERNETWORKS_PASSWORD"),
        help="ask for it (without it, --listen makes one up; the variable HYPERNETWORKS_PASSWORD does the same)",
    )
    entry.add_argument(
        "--no-password", action="store_true", help="with --listen: let in whoever can reach it"
    )
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--hypernetworks", type=Path, action="append", default=[], metavar="DIR")
    parser.add_argument(
        "--training", type=Path, metavar="DIR", help="for runs and pictures to learn from"
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="pictures to learn from, below it",
    )
    add_device(parser)
    parser.set_defaults(command=_run, prediction=None)


def _run(options: argparse.Namespace) -> int:
    need("diffusers", "transformers", "PIL", "gradio")
    from ..library.hashing import Hashes, usual_store
    from ..studio import launch
    from ..studio.train.folders import Places
    from ..studio.web.login import new_password
    from ..studio.web.server import TRAINING

    own = (
        [] if options.hypernetworks else [Path.home() / "hypernetworks"]
    )  # made when a network is dropped on the page
    if options.password == "":
        raise HypernetworkError("the password is empty: write one, or leave --password out")
    password = (
        None
        if options.no_password
        else options.password or (new_password() if options.listen else None)
    )
    painter = load_painter(options, own)
    painter.library.hashes = Hashes(usual_store())
    launch(
        painter,
        port=options.port,
        open_browser=not options.no_browser,
        anywhere=options.listen,
        password=password,
        places=Places(options.training or Path.home() / TRAINING, tuple(options.pictures)),
    )
    return 0
