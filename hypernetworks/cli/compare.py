"""The command ``compare``."""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import say, warn
from ..ending import noticed
from ..errors import HypernetworkError
from ..progress import Progress
from .model import load_painter, need
from .outputs import refuse_existing
from .settings import STOPPING, add_prompt, add_settings, generation_of

if TYPE_CHECKING:
    from ..hosts.diffusers import Generation, Painter
    from ..studio.comparing.working import Compared
    from ..studio.job_queue import Update
    from ..training.processes import World

AXES: Mapping[str, str] = {
    "words": "Words",
    "network": "Network",
    "multiplier": "Multiplier",
    "blocks": "Blocks",
    "block-off": "One block off",
    "steps": "Steps",
    "cfg": "CFG scale",
    "seed": "Seed",
    "sampler": "Sampler",
}
"""How the kinds of :mod:`hypernetworks.studio.comparing.axes` are typed."""
PATIENCE = timedelta(days=30)
"""How long a process waits for the others, which may have slower devices and hours of work."""
EXAMPLES = """examples:
  python -m hypernetworks compare "a cat <hypernet:ink:1>" --x multiplier=0-1[5] -o sheet.html
  python -m hypernetworks compare "a cat" --x network=ink,sepia --y seed=1-4 --without -o sheet.png
  python -m hypernetworks compare "a cat <hypernet:ink:1>" --x block-off= --without -o blocks.html
  torchrun --nproc_per_node 2 -m hypernetworks compare …     on two GPUs
"""


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``compare``."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_prompt(
        parser,
        "sheet.html",
        "the file to write: .html, which needs nothing else, or .png (default: sheet.html)",
    )

    for name, what in (("x", "columns"), ("y", "rows"), ("z", "pages")):
        parser.add_argument(
            f"--{name}",
            type=_axis,
            default=("", ""),
            metavar="KIND=VALUES",
            help=f"{what}: {', '.join(AXES)}, then = and values, such as steps=10-30(+10)",
        )
    parser.add_argument(
        "--without", action="store_true", help="begin with a column without the networks"
    )
    add_settings(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(command=_run)


def _axis(text: str) -> tuple[str, str]:
    """Parse ``multiplier=0,0.5,1``."""
    name, equals, values = text.partition("=")
    if name.strip() not in AXES or not equals:
        raise argparse.ArgumentTypeError(
            f'"{text}" is not an axis: write KIND=VALUES, with one of {", ".join(AXES)}'
        )
    return AXES[name.strip()], values


def _run(options: argparse.Namespace) -> int:
    need("diffusers", "transformers", "PIL")
    job = generation_of(options)
    _check_output(options.output, options.overwrite)
    if not any(kind for kind, _ in (options.x, options.y, options.z)):
        raise HypernetworkError("there is nothing to compare: add --x multiplier=0,0.5,1, say")

    from ..training.processes import together

    # torchrun starts this command in several processes, each with a device of its own.
    with together(options.device, PATIENCE) as world:
        options.device = world.device(options.device)
        job = replace(job, seed=_agreed(world, job.seed))
        painter = load_painter(options)
        made = _gathered(world, _compare(options, painter, job, world))
        if not world.is_first:
            return 0
        for message in made.messages:
            warn(f"hypernetworks: {message}")
        if made.plan is None or not made.pictures:
            return 2
        _write(options.output, job, made)

    say(str(options.output.resolve()))
    return 0 if len(made.pictures) == len(made.plan.jobs) else 130


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuse, before the model is loaded, a path that can't be written."""
    if output.suffix.lower() not in (".html", ".png"):
        raise HypernetworkError(f"-o {output}: choose a name that ends in .html or .png")
    if not output.parent.is_dir() or output.is_dir() or not os.access(output.parent, os.W_OK):
        raise HypernetworkError(f"-o {output} can't be written: name a file in an existing folder")
    refuse_existing([output], overwrite=overwrite)


def _compare(
    options: argparse.Namespace, painter: Painter, job: Generation, world: World
) -> Compared:
    """The images that are this process's."""
    from ..studio.comparing.planning import plan
    from ..studio.comparing.working import compare, model_blocks

    axes = (options.x, options.y, options.z)
    todo = plan(job, axes, painter.library, without=options.without, blocks=model_blocks(painter))
    share = (world.rank, world.size)
    total = sum(todo.jobs[cells[0]].steps for cells in todo.groups()[world.rank :: world.size])
    cancelled = threading.Event()
    with noticed(STOPPING) as ending, Progress(max(total, 1), "generating") as progress:

        def tell(update: Update) -> None:
            if ending:
                cancelled.set()
            if world.is_first:
                progress.total = update.total  # less where a network doesn't fit the model
                progress.update(update.done, update.note.partition(" · ")[0])

        return compare(painter, job, todo, tell, cancelled, share=share)


def _agreed(world: World, seed: int) -> int:
    """The first process's seed: each has drawn a random one of its own."""
    if world.size == 1:
        return seed
    from torch import distributed

    seeds = [seed]
    distributed.broadcast_object_list(seeds, src=0)
    return seeds[0]


def _gathered(world: World, own: Compared) -> Compared:
    """What all processes have made together.

    Raises:
        HypernetworkError: one of them has ended before that.
    """
    if world.size == 1:
        return own
    from torch import distributed

    from ..studio.comparing.working import Compared

    parts: list[Compared | None] = [None] * world.size
    try:
        distributed.all_gather_object(parts, own)
    except RuntimeError as error:  # its connection was closed
        raise HypernetworkError(
            "another process of this comparison has failed: see its message. Nothing is written"
        ) from error
    found = [part for part in parts if part is not None]
    pictures = {cell: picture for part in found for cell, picture in part.pictures.items()}
    messages = dict.fromkeys(message for part in found for message in part.messages)
    return Compared(own.plan, pictures, list(messages))


def _write(output: Path, job: Generation, made: Compared) -> None:
    """Write the sheet, with its columns sorted where they are blocks."""
    from ..files.writing import replace as replace_file
    from ..hosts.diffusers import Picture, save_png
    from ..studio.comparing.drawing import heading, sheet
    from ..studio.comparing.page_file import page_file
    from ..studio.comparing.planning import WITHOUT
    from ..studio.comparing.ranking import notes, ranked

    assert made.plan is not None
    plan, pictures, changes = ranked(made.plan, made.pictures)
    beside = notes(changes, WITHOUT)
    for label, note in beside.items():
        warn(f"hypernetworks: {label}: {note}")

    if output.suffix.lower() == ".html":
        text = page_file(plan, pictures, heading(job), beside)
        content = text.encode("utf-8", "replace")
        replace_file(output, lambda temporary: temporary.write_bytes(content))
        return
    images = {cell: picture.image for cell, picture in pictures.items()}
    paper = sheet(plan, images, heading(job), beside)
    save_png(Picture(paper, pictures[min(pictures)].infotext), output)
