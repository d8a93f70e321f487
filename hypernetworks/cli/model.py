"""The model and the library that the options of a command ask for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..console import say
from ..errors import HypernetworkError


def load_painter(options: argparse.Namespace, own: Sequence[Path] = ()):  # type: ignore[no-untyped-def]
    """The model and library that ``--checkpoint``, ``--hypernetworks`` and ``--device`` ask for.

    Args:
        own: more folders of the user's, which need not exist.
    """
    from ..devices import choose_device
    from ..hosts.diffusers import MINIATURE_NETWORKS, Painter
    from ..library import Library

    for folder in options.hypernetworks:
        if not folder.is_dir():
            raise HypernetworkError(f"--hypernetworks {folder}: there is no such folder")
    library = Library([*options.hypernetworks, *own, MINIATURE_NETWORKS])
    painter = Painter(
        options.checkpoint,
        library,
        device=choose_device(options.device, _tell),
        prediction=options.prediction,
        precision=getattr(options, "weights", "auto"),
    )
    if source := getattr(painter.pipeline, "prediction_source", None):
        kind = painter.pipeline.scheduler.config.prediction_type
        _tell(f"{painter.model_name} predicts {kind} ({source})")
    return painter


def add_device(parser: argparse._ActionsContainer, *, precision: bool = True) -> None:
    """The options that say where to compute, and with how many bits.

    Args:
        precision: whether it says the latter, too; training has a ``--precision`` of its own.
    """
    parser.add_argument(
        "--device",
        help="cuda, cuda:1, xpu, mps, directml or cpu (default: the fastest that works here)",
    )
    if precision:
        parser.add_argument(
            "--precision",
            dest="weights",
            choices=("auto", "fp32", "fp16", "bf16"),
            default="auto",
            help="of the model's weights (default: fp32 on the CPU, fp16 elsewhere)",
        )


def _tell(line: str) -> None:
    say(f"hypernetworks: {line}", sys.stderr)


def need(*modules: str) -> None:
    """Raises HypernetworkError where a package that the command needs isn't installed."""
    from importlib.util import find_spec

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise HypernetworkError(
            f"this command needs {', '.join(missing)}: run `python install.py studio` once, or "
            "pip install "
            '"hypernetworks[studio]"'
        )
