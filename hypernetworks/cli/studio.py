"""The command ``studio``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..console import pasted_path
from .model import add_checkpoint, add_device, add_vae, load_painter, need, usual_folder
from .passwords import add_password, chosen_password
from .values import integer


def add_studio(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``studio``."""
    parser.add_argument(
        "--port", type=integer(1, 65535), default=7870, help="port to listen on (default: 7870)"
    )
    parser.add_argument("--no-browser", action="store_true", help="don't open a browser")
    parser.add_argument(
        "--listen", action="store_true", help="accept connections from other machines"
    )
    add_password(parser)
    add_checkpoint(parser)
    add_vae(parser)
    parser.add_argument(
        "--checkpoints",
        type=pasted_path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of checkpoints that the page offers; repeat the option for more folders",
    )
    parser.add_argument(
        "--hypernetworks",
        type=pasted_path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of hypernetworks; repeat the option for more folders (default: hypernetworks "
        "in your home folder)",
    )
    parser.add_argument(
        "--training",
        type=pasted_path,
        metavar="DIR",
        help="folder for training runs and uploaded images (default: hypernetworks-training in "
        "your home folder)",
    )
    parser.add_argument(
        "--images",
        type=pasted_path,
        metavar="DIR",
        help="folder for generated images (default: hypernetworks/images in your home folder)",
    )
    parser.add_argument(
        "--pictures",
        type=pasted_path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder whose sub-folders of images can be used for training; repeat the option for "
        "more",
    )

    add_device(parser)
    parser.set_defaults(command=_run, prediction=None)


def _run(options: argparse.Namespace) -> int:
    need("diffusers", "transformers", "PIL", "gradio")
    from ..library.hashing import Hashes, usual_store
    from ..studio import launch
    from ..studio.checkpoints import Checkpoints
    from ..studio.job_queue import JobQueue
    from ..studio.unfinished import Unfinished
    from ..studio.web.login import new_password
    from ..studio.web.server import TRAINING
    from ..training.folders import TrainingFolders

    # The folder needn't exist: dropping a file on the page makes it.
    own = [] if options.hypernetworks else [usual_folder()]

    # Whoever listens without choosing gets a password, so that no page is open by accident.
    password = chosen_password(options)
    if password is None and options.listen and not options.no_password:
        password = new_password()

    # No variable for the model: it would keep the first one in memory after another is loaded.
    # Named by the port, as its pages are by their address: only they can come back to it.
    unfinished = Unfinished(usual_store().with_name(f"unfinished-{options.port}.json"))
    job_queue = JobQueue(load_painter(options, own), unfinished)
    job_queue.library.hashes = Hashes(usual_store())
    launch(
        job_queue,
        port=options.port,
        open_browser=not options.no_browser,
        anywhere=options.listen,
        password=password,
        training_folders=TrainingFolders(
            options.training or Path.home() / TRAINING, tuple(options.pictures)
        ),
        images=options.images,
        checkpoints=Checkpoints(
            options.checkpoints, usual_store().with_name("recent-checkpoints.json")
        ),
    )
    return 0
