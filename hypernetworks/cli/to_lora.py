"""``convert --to lora``, and what the commands for conversion share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import pasted_path, say
from ..errors import FileMissingError, HypernetworkError
from ..progress import Progress
from .fit_lora import MINIATURE, add_fit, fit_file, report
from .values import number

if TYPE_CHECKING:
    from ..conversion import Weighted
    from ..conversion.low_rank import Rank

LAYOUTS = ("kohya", "comfyui", "a1111", "peft")
"""Values of ``--format``; the first is the default."""


def add_to_lora(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``convert`` that are for ``--to lora``."""
    parser.add_argument(
        "--to",
        choices=("hypernetwork", "lora"),
        default="hypernetwork",
        help="what to write (default: hypernetwork)",
    )

    lora = parser.add_argument_group("with --to lora")
    lora.add_argument(
        "--base",
        type=_base,
        help="the checkpoint that the network is used with: .safetensors, a diffusers folder, or "
        "miniature for the model that comes with this project",
    )
    lora.add_argument(
        "--network",
        action="append",
        default=[],
        metavar="FILE:MULTIPLIER",
        help="another network in the same LoRA; repeat the option for more",
    )
    _add_lora_options(lora)

    add_fit(parser)


def _add_lora_options(group: argparse._ArgumentGroup) -> None:
    """Add the arguments that say how a LoRA is written."""
    group.add_argument(
        "--rank", type=_rank, default="full", help="rank: full, auto, or a number (default: full)"
    )
    group.add_argument(
        "--error",
        type=number(1e-6, 1),
        default=0.01,
        help="with --rank auto: the share of each change that may be left out (default: 0.01)",
    )

    group.add_argument(
        "--dtype",
        choices=("fp16", "fp32", "bf16"),
        default="fp16",
        help="type of the weights (default: fp16)",
    )


def _base(text: str) -> Path:
    """A path, or the miniature by its name where no such file exists."""
    path = pasted_path(text)
    return MINIATURE if text == "miniature" and not path.exists() else path


def _rank(text: str) -> str:
    if text not in ("full", "auto") and not (text.isdecimal() and 1 <= int(text) <= 4096):
        raise argparse.ArgumentTypeError(f'"{text}" is not full, auto, or a number from 1 to 4096')
    return text


def to_lora_file(options: argparse.Namespace) -> int:
    """Write one or several networks as one LoRA; returns the exit code."""
    from ..conversion import Base, to_lora

    if len(options.sources) > 1:
        raise HypernetworkError(
            "--to lora writes one file: give one SRC, and further networks with --network"
        )
    if options.base is None:
        raise HypernetworkError(
            "--to lora needs the checkpoint that the network is used with: add --base CHECKPOINT"
        )
    networks = [read_weighted(text) for text in (str(options.sources[0]), *options.network)]
    is_linear = all(weighted.network.structure.is_linear for weighted in networks)
    if not is_linear and options.fit != "none":
        return fit_file(options, networks, how_written(options))

    with Base(options.base) as base, Progress(len(base.layers), "converting") as progress:
        converted = to_lora(
            base,
            networks,
            options.target,
            **how_written(options),
            on_progress=lambda done, _total: progress.update(done),
        )
    report(converted)
    say(str(options.target))
    return 0


def how_written(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of both ways to a LoRA."""
    return {
        "rank": _rank_of(options),
        "layout": options.format or LAYOUTS[0],
        "dtype": options.dtype,
    }


def _rank_of(options: argparse.Namespace) -> Rank:
    """The rank that ``--rank`` and ``--error`` describe."""
    from ..conversion.low_rank import FULL, Rank

    if options.rank == "full":
        return FULL
    return Rank(error=options.error) if options.rank == "auto" else Rank(int(options.rank))


def read_weighted(text: str) -> Weighted:
    """Read ``FILE`` or ``FILE:MULTIPLIER``, with a multiplier as in a tag, without a schedule.

    Raises:
        FileMissingError: neither the whole text nor the part before a colon is a file.
        MultiplierError: the rest isn't a multiplier.
        OSError: the system refuses to look for the file.
    """
    from ..conversion import Weighted
    from ..engine.multiplier import Multiplier
    from ..files import read

    ends = [i for i, character in enumerate(text) if character == ":"]
    refused: OSError | None = None
    for end in [len(text), *reversed(ends)]:  # the longest first: C:\a.pt has a colon of its own
        try:
            is_found = end > 0 and Path(text[:end]).is_file()
        except OSError as error:  # of the whole text; without the multiplier it may be fine
            refused, is_found = error, False
        if is_found:
            rest = text[end + 1 :]
            multiplier = Multiplier.parse(rest) if rest else Multiplier()
            return Weighted(read(Path(text[:end])), multiplier)
    if refused is not None:
        raise refused
    raise FileMissingError(f"{text}: there is no such file: write FILE or FILE:MULTIPLIER")
