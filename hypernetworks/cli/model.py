"""The options that name a model and a library, shared by commands, and their loading."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..console import pasted_path, warn
from ..errors import HypernetworkError


def load_painter(options: argparse.Namespace, own: Sequence[Path] = ()):  # type: ignore[no-untyped-def]
    """Load the model and the library that the options name.

    Args:
        own: further folders of networks, which needn't exist.
    """
    from ..devices import choose_device
    from ..hosts.diffusers import MINIATURE_NETWORKS, Painter
    from ..library import Library

    for folder in options.hypernetworks:
        if not folder.is_dir():
            raise HypernetworkError(f"--hypernetworks {folder}: there is no such folder")

    # The first folder wins where two files have one name, so the user's folders come first.
    library = Library([*options.hypernetworks, *own, MINIATURE_NETWORKS])
    painter = Painter(
        options.checkpoint,
        library,
        device=choose_device(options.device, _tell),
        prediction=options.prediction,
        precision=getattr(options, "weights", "auto"),
        vae=getattr(options, "vae", None),
    )
    if source := getattr(painter.pipeline, "prediction_source", None):
        kind = painter.pipeline.scheduler.config.prediction_type
        _tell(f"{painter.model_name} predicts {kind} ({source})")
    return painter


def usual_folder() -> Path:
    """The user's own folder of hypernetworks, which needn't exist."""
    return Path.home() / "hypernetworks"


def add_device(parser: argparse._ActionsContainer, *, precision: bool = True) -> None:
    """Add ``--device`` and ``--precision``.

    Args:
        precision: whether to add the second; training has a ``--precision`` of its own.
    """
    parser.add_argument(
        "--device",
        help="cuda, cuda:1, xpu, mps, directml or cpu (default: the fastest that works)",
    )

    # Not "precision" in the namespace: for a training, that is a setting of its own.
    if precision:
        parser.add_argument(
            "--precision",
            dest="weights",
            choices=("auto", "fp32", "fp16", "bf16"),
            default="auto",
            help="type of the model's weights (default: fp32 on the CPU, fp16 elsewhere)",
        )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add ``--checkpoint``."""
    parser.add_argument(
        "--checkpoint",
        type=pasted_path,
        help="SD1, SD2 or SDXL .safetensors file, or diffusers folder (default: the miniature)",
    )


def add_vae(parser: argparse.ArgumentParser) -> None:
    """Add ``--vae``."""
    parser.add_argument(
        "--vae",
        type=pasted_path,
        help="VAE .safetensors file, or diffusers folder (default: the checkpoint's own)",
    )


def add_prediction(parser: argparse.ArgumentParser) -> None:
    """Add ``--prediction``."""
    parser.add_argument(
        "--prediction",
        choices=("epsilon", "v_prediction"),
        help="for SD2: epsilon for 512 models, v_prediction for 768 models (default: detected)",
    )


def _tell(line: str) -> None:
    warn(f"hypernetworks: {line}")


def need(*modules: str) -> None:
    """Check that packages are installed.

    Raises:
        HypernetworkError: one is missing.
    """
    from importlib.util import find_spec

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise HypernetworkError(
            f"this command needs {', '.join(missing)}: run `python install.py studio` once, or "
            '`pip install "hypernetworks[studio]"`'
        )
