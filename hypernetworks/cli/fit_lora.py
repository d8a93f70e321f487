"""``hypernetworks convert --to lora`` for networks that aren't linear."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import say
from ..ending import noticed
from ..errors import HypernetworkError
from ..files.lines import lines_of
from ..progress import Progress
from .model import add_device, need
from .outputs import refuse_existing
from .values import integer, number

if TYPE_CHECKING:
    from ..conversion import Converted, Weighted
    from ..hosts.diffusers.conversion import Fitted, Training

MINIATURE = Path(__file__).parents[1] / "miniature" / "weights"
"""Not imported from where it is used: that needs diffusers."""
MINIATURE_CFG = 3.0
"""The guidance scale that the miniature is made for."""
STOPPING = "hypernetworks: the training ends after this step, and what it has learned is written"
"""Said when a command is asked to end."""


def add_fit(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``convert --to lora`` that only such networks need."""
    fit = parser.add_argument_group("with --to lora, for networks that aren't linear")
    fit.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="text file with a prompt on each line (default: prompts that come with this command)",
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
        "--multiplier-range",
        type=_range,
        metavar="LOW,HIGH",
        help="multipliers that the LoRA is fitted for (default: 1,1; with --fit least-squares "
        "0.5,1)",
    )
    fit.add_argument(
        "--sheet",
        type=Path,
        metavar="PNG",
        help="PNG file to write with the measured images (default: NAME.sheet.png beside the LoRA)",
    )
    add_device(fit)

    fit.add_argument(
        "--fit",
        choices=("distill", "least-squares", "none"),
        default="distill",
        help="distill (default): train the LoRA; least-squares: quicker, less exact; none: refuse "
        "networks that aren't linear",
    )
    _add_training(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``--fit distill``."""
    distil = parser.add_argument_group("with --fit distill")
    distil.add_argument(
        "--train-steps",
        type=integer(1, 1_000_000),
        default=1000,
        help="training steps (default: 1000)",
    )
    distil.add_argument(
        "--learning-rate",
        type=number(1e-7, 1),
        default=3e-3,
        help="learning rate, lowered where it is too high for the model (default: 0.003)",
    )
    distil.add_argument(
        "--batch",
        type=integer(1, 1024),
        default=8,
        help="noisy images in a training step (default: 8)",
    )
    distil.add_argument(
        "--seed", type=integer(0, 2**32 - 1), default=0, help="seed of the training (default: 0)"
    )


def fit_file(
    options: argparse.Namespace, networks: list[Weighted], how_written: dict[str, Any]
) -> int:
    """Write the nearest LoRA to networks that aren't linear; returns the exit code.

    Args:
        how_written: arguments of :func:`~hypernetworks.conversion.to_lora`.
    """
    need("diffusers", "transformers", "PIL")
    from ..conversion import Base
    from ..devices import choose_device, default_dtype
    from ..hosts.diffusers.checkpoints.loading import load_checkpoint
    from ..hosts.diffusers.conversion import Sampling, fit_lora, save_sheet

    cfg = MINIATURE_CFG if options.cfg is None and _is_miniature(options.base) else options.cfg
    sampling = Sampling(_prompts(options), options.steps, cfg, options.size, _multipliers(options))
    # asked for again later; too few prompts are said before the model is loaded
    sampling.split()
    sheet = options.sheet or options.target.with_suffix(".sheet.png")
    refuse_existing([sheet], overwrite=options.overwrite)
    device = choose_device(options.device)
    pipeline = load_checkpoint(options.base, dtype=default_dtype(device, options.weights))
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)

    training = _training(options)
    with (
        Base(options.base) as base,
        Progress(1, "fitting") as progress,
        noticed(STOPPING) if training else nullcontext(False) as stop,
    ):

        def tell(done: int, total: int) -> None:
            progress.total = total
            progress.update(done)

        fitted = fit_lora(
            pipeline,
            base,
            networks,
            options.target,
            sampling,
            **how_written,
            training=training,
            on_progress=tell,
            stop=lambda: bool(stop),
        )

    if fitted.steps:
        say(_of_training(fitted))
    else:
        report(fitted.converted)
    for line in fitted.said():
        say(line)
    save_sheet(fitted.strips, sheet)
    say(str(sheet))
    say(str(options.target))
    return 0


def _is_miniature(base: Path) -> bool:
    return base.resolve() == MINIATURE.resolve()


def _of_training(fitted: Fitted) -> str:
    layers = fitted.converted.layers
    size = fitted.converted.bytes / 2**20
    return (
        f"{len(layers)} layers at rank {layers[0].rank}; {size:.1f} MiB; {fitted.steps} training "
        "steps"
    )


def _multipliers(options: argparse.Namespace) -> tuple[float, ...]:
    """Where the LoRA is fitted and measured: the strongest first."""
    usual = (1.0, 1.0) if options.fit == "distill" else (0.5, 1.0)
    low, high = options.multiplier_range or usual
    middle = round((low + high) / 2, 6)
    # what is between two ends that are near each other fits by itself
    found = (high, middle, low) if high - low > 0.5 else (high, low)
    return tuple(dict.fromkeys(found))


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = sorted(float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    # at 0 a LoRA has no effect that could be measured
    if not (-10 <= low <= high <= 10) or 0 in (low, high):
        raise argparse.ArgumentTypeError(f'"{text}" is not a range such as 0.5,1')
    return low, high


def _training(options: argparse.Namespace) -> Training | None:
    """What the options of ``--fit distill`` say."""
    from ..hosts.diffusers.conversion import Training

    if options.fit != "distill":
        return None
    if options.rank == "auto":
        raise HypernetworkError("--rank auto doesn't go with --fit distill: leave it out")
    return Training(
        options.train_steps,
        options.learning_rate,
        options.batch,
        None if options.rank == "full" else int(options.rank),
        options.seed,
    )


def _prompts(options: argparse.Namespace) -> list[str]:
    """The lines of the file that ``--prompts`` names, or prompts for the model."""
    if options.prompts is None and _is_miniature(options.base):
        from ..miniature.subjects import captions

        return captions()
    if options.prompts is None:
        from ..hosts.diffusers.conversion import general_prompts

        say(
            "A network isn't linear, so the LoRA is fitted to images of general prompts. It comes "
            "closer with your own: --prompts FILE"
        )
        return general_prompts()
    try:
        text: str = options.prompts.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise HypernetworkError(
            f"--prompts {options.prompts}: it can't be read ({error})"
        ) from error
    return lines_of(text)


def report(converted: Converted) -> None:
    """One line for each projection that isn't whole, and a summary."""
    narrowed = [layer for layer in converted.layers if layer.rank is not None]
    for layer in narrowed:
        say(f"{layer.name}: rank {layer.rank}, error {layer.error:.2%}")
    bias = ", and the bias of to_out" if converted.has_bias else ""
    size = f"{converted.bytes / 2**20:.1f} MiB"
    say(
        f"{len(converted.layers)} projections{bias}; {size}; largest error "
        f"{converted.worst.error:.2%}"
    )
