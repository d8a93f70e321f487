"""``convert --to lora``, and what the commands for conversion share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import say
from ..errors import FileMissingError, HypernetworkError
from ..progress import Progress
from .model import add_device, need
from .values import integer, number

if TYPE_CHECKING:
    from ..conversion import Converted, Weighted
    from ..conversion.low_rank import Rank

LAYOUTS = ("kohya", "comfyui", "peft")
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
        type=Path,
        help="the checkpoint that the network is used with: .safetensors, or a diffusers folder",
    )
    lora.add_argument(
        "--network",
        action="append",
        default=[],
        metavar="FILE:MULTIPLIER",
        help="another network in the same LoRA; repeat the option for more",
    )
    _add_lora_options(lora)

    fit = parser.add_argument_group("with --to lora, for networks that aren't linear")
    fit.add_argument(
        "--prompts", type=Path, metavar="FILE", help="text file with a prompt on each line"
    )
    fit.add_argument(
        "--steps", type=integer(1, 1000), default=12, help="sampling steps (default: 12)"
    )
    fit.add_argument("--cfg", type=number(0, 100), help="guidance scale (default: the model's own)")
    fit.add_argument(
        "--size",
        type=integer(64, 4096),
        help="width and height of the images (default: the model's own)",
    )
    fit.add_argument(
        "--sheet", type=Path, metavar="PNG", help="PNG file to write with the measured images"
    )
    add_device(fit)


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
    if not all(weighted.network.structure.is_linear for weighted in networks):
        return _fit(options, networks)

    with Base(options.base) as base, Progress(len(base.layers), "converting") as progress:
        converted = to_lora(
            base,
            networks,
            options.target,
            **_how_written(options),
            on_progress=lambda done, _total: progress.update(done),
        )
    _report(converted)
    say(str(options.target))
    return 0


def _fit(options: argparse.Namespace, networks: list[Weighted]) -> int:
    """Write the nearest LoRA to networks that aren't linear; returns the exit code."""
    need("diffusers", "transformers", "PIL")
    from ..conversion import Base
    from ..devices import choose_device, default_dtype
    from ..hosts.diffusers.checkpoints.loading import load_checkpoint
    from ..hosts.diffusers.conversion import Sampling, fit_lora, save_sheet

    if options.prompts is None:
        raise HypernetworkError(
            "a network isn't linear, so the LoRA is fitted to images: add --prompts FILE, with a "
            "prompt on each line, such as those that you use the network with"
        )

    try:
        prompts = options.prompts.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise HypernetworkError(
            f"--prompts {options.prompts}: it can't be read ({error})"
        ) from error

    sampling = Sampling(prompts, options.steps, options.cfg, options.size)
    sampling.split()  # too few prompts are an error now, not after minutes
    device = choose_device(options.device)
    pipeline = load_checkpoint(options.base, dtype=default_dtype(device, options.weights))
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    with Base(options.base) as base, Progress(1, "fitting") as progress:

        def report(done: int, total: int) -> None:
            progress.total = total  # known only when the prompts are split
            progress.update(done)

        fitted = fit_lora(
            pipeline,
            base,
            networks,
            options.target,
            sampling,
            **_how_written(options),
            on_progress=report,
        )

    _report(fitted.converted)
    say(f"{fitted.share:.1%} of the effect on the images, on prompts kept out of the fit")
    if options.sheet is not None:
        save_sheet(fitted.strips, options.sheet)
        say(str(options.sheet))
    say(str(options.target))
    return 0


def _how_written(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments that both ways to a LoRA share."""
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
    """
    from ..conversion import Weighted
    from ..engine.multiplier import Multiplier
    from ..files import read

    ends = [i for i, character in enumerate(text) if character == ":"]
    for end in [len(text), *reversed(ends)]:  # the longest first: C:\a.pt has a colon of its own
        if end > 0 and Path(text[:end]).is_file():
            rest = text[end + 1 :]
            multiplier = Multiplier.parse(rest) if rest else Multiplier()
            return Weighted(read(Path(text[:end])), multiplier)
    raise FileMissingError(f"{text}: there is no such file: write FILE or FILE:MULTIPLIER")


def _report(converted: Converted) -> None:
    """Print a line for each projection of reduced rank, and a summary."""
    narrowed = [layer for layer in converted.layers if layer.rank is not None]
    for layer in narrowed:
        say(f"{layer.name}: rank {layer.rank}, error {layer.error:.2%}")
    bias = ", and the bias of to_out" if converted.has_bias else ""
    size = f"{converted.bytes / 2**20:.1f} MiB"
    say(
        f"{len(converted.layers)} projections{bias}; {size}; largest error "
        f"{converted.worst.error:.2%}"
    )
