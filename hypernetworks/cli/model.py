"""The model and the library that the options of a command ask for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..errors import HypernetworkError


def load_painter(options: argparse.Namespace, own: Sequence[Path] = ()):  # type: ignore[no-untyped-def]
    """The model and library that ``--checkpoint``, ``--hypernetworks`` and ``--device`` ask for.

    Args:
        own: more folders of the user's, which need not exist.
    """
    from ..hosts.diffusers import MINIATURE_NETWORKS, Painter
    from ..library import Library

    for folder in options.hypernetworks:
        if not folder.is_dir():
            raise HypernetworkError(f"--hypernetworks {folder}: there is no such folder")
    library = Library([*options.hypernetworks, *own, MINIATURE_NETWORKS])
    return Painter(
        options.checkpoint, library, device=_device(options.device), prediction=options.prediction
    )


def _device(name: str) -> str:
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise HypernetworkError(
            f'--device {name}: this machine can\'t use it, leave it out for "cpu"'
        ) from error
    return name


def need(*modules: str) -> None:
    """Raises HypernetworkError where a package that the command needs isn't installed."""
    from importlib.util import find_spec

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise HypernetworkError(
            f"this command needs {', '.join(missing)}: run `python install.py studio` once, or pip install "
            '"hypernetworks[studio]"'
        )
