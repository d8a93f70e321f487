"""The commands ``merge`` and ``resize``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import say
from ..errors import HypernetworkError
from .outputs import add_output, refuse_existing
from .to_lora import read_weighted
from .values import number

if TYPE_CHECKING:
    from ..engine.network import Hypernetwork


def add_merge(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``merge``."""
    parser.add_argument(
        "networks",
        nargs="+",
        metavar="NETWORK",
        help="networks in the order of application: FILE or FILE:MULTIPLIER",
    )
    add_output(parser)
    parser.set_defaults(command=_merge)


def add_resize(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``resize``."""
    parser.add_argument("source", type=Path, metavar="SRC", help="a linear network")
    parser.add_argument(
        "--hidden",
        type=number(1e-4, 8),
        required=True,
        help="hidden units, in multiples of the context width, such as 0.1",
    )
    add_output(parser)
    parser.set_defaults(command=_resize)


def _merge(options: argparse.Namespace) -> int:
    from ..conversion.merging import merge

    refuse_existing([options.output], overwrite=options.overwrite)
    networks = [read_weighted(text) for text in options.networks]
    made = merge(options.output.stem, networks)
    write_made(made.network, options.output, options.dtype)
    say(made.verdict)
    say(str(options.output))
    return 0


def _resize(options: argparse.Namespace) -> int:
    from ..conversion.merging import resize
    from ..files import read

    refuse_existing([options.output], overwrite=options.overwrite)
    made = resize(read(options.source), options.hidden)
    write_made(made.network, options.output, options.dtype)
    say(made.left_out)
    say(str(options.output))
    return 0


def write_made(network: Hypernetwork, path: Path, dtype: str) -> None:
    """Write a new network in a type.

    Raises:
        HypernetworkError: the type can't hold its numbers.
        FileWriteError: the file can't be written.
    """
    from ..devices import PRECISIONS
    from ..files import write

    network.to("cpu", PRECISIONS[dtype])
    # fp16 ends at 65,504; larger weights have become infinite.
    for parameter in network.parameters():
        if not parameter.isfinite().all():
            raise HypernetworkError(
                f"the weights of the new network don't fit into {dtype}: add --dtype fp32"
            )
    write(network, path)
