"""Rebuilds and measures the miniature: ``python -m hypernetworks.miniature TOOL``.

In the order of a rebuild: ``pictures``, ``autoencoder``, ``base``, ``decoder``, ``assemble``,
``styles``, ``networks``, ``measure``, ``strips``. Every tool is seeded, shows its progress, and
continues where it was interrupted. ``styles`` trains on the included model, so of the tools before
it, it needs only ``pictures``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..console import say
from .subjects import SHIPPED

HERE = Path(__file__).parent
STEPS = {"autoencoder": 2700, "base": 5600, "decoder": 2200}
"""Optimizer steps of the included weights; for the style networks, the recipes have them."""


def main() -> int:
    """Run one tool; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="hypernetworks.miniature", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("tool", choices=sorted(TOOLS))
    parser.add_argument(
        "--build", type=Path, default=Path("build/miniature"), help="folder for checkpoints"
    )
    parser.add_argument(
        "--packages", type=Path, help="folder of the npm packages (default: in the build folder)"
    )
    parser.add_argument(
        "--styles", nargs="+", default=list(SHIPPED), help="style networks (default: all of them)"
    )
    parser.add_argument(
        "--steps", type=int, help="training steps; for measure: sampling steps (default: 20)"
    )
    parser.add_argument("--seeds", type=int, default=2, help="for measure: seeds per subject")
    parser.add_argument("--cfg", type=float, default=3.0, help="for measure: guidance scale")

    options = parser.parse_args()
    options.build.mkdir(parents=True, exist_ok=True)
    TOOLS[options.tool](options)

    return 0


def _pictures(options: argparse.Namespace) -> np.ndarray:
    from .rendering import render

    # Rendering takes minutes, and every later tool needs the images.
    path = options.build / "pictures.npy"
    if not path.exists():
        np.save(path, render(options.packages or options.build / "packages"))
    pictures: np.ndarray = np.load(path)
    return pictures


def _autoencoder(options: argparse.Namespace) -> None:
    from . import autoencoder

    autoencoder.train(
        _pictures(options), options.build / "autoencoder", options.steps or STEPS["autoencoder"]
    )


def _encoder_only(options: argparse.Namespace) -> Any:
    from . import autoencoder
    from .assembling import averaged

    return averaged(autoencoder.build(), options.build / "autoencoder")


def _base(options: argparse.Namespace) -> None:
    from . import base

    folder = options.build / "base"
    base.train(_encoder_only(options), _pictures(options), folder, options.steps or STEPS["base"])


def _decoder(options: argparse.Namespace) -> None:
    from . import autoencoder

    folder = options.build / "decoder"
    autoencoder.train_decoder(
        _encoder_only(options), _pictures(options), folder, options.steps or STEPS["decoder"]
    )


def _styles(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from ..files import write
    from . import styles

    # On the included weights, which users have: rebuilt ones differ in their last digits.
    pipeline, pictures = _shipped(), _pictures(options)
    for style in options.styles:
        settings = styles.RECIPES[style].settings
        network = styles.train_style(
            style,
            pictures,
            pipeline.vae,
            pipeline.text_encoder,
            pipeline.tokenizer,
            pipeline.unet,
            options.build / f"style-{style}",
            replace(settings, steps=options.steps or settings.steps),
        )
        write(network, options.build / f"{style}.safetensors")


def _assemble(options: argparse.Namespace) -> None:
    from .assembling import assemble, save

    save(assemble(options.build), options.build / "base" / "tokenizer", HERE / "weights")
    _print_size()


def _networks(options: argparse.Namespace) -> None:
    import torch

    from ..files import read, write

    (HERE / "networks").mkdir(exist_ok=True)
    for style in options.styles:
        network = read(options.build / f"{style}.safetensors")
        network.to("cpu", torch.float16)  # trained in fp32; half the size to ship
        write(network, HERE / "networks" / f"{style}.safetensors")
    _print_size()


def _print_size() -> None:
    total = sum(
        p.stat().st_size
        for p in [*HERE.glob("weights/**/*"), *HERE.glob("networks/*")]
        if p.is_file()
    )
    say(f"{total / 1e6:.1f} MB")


def _shipped() -> Any:
    import torch

    from ..hosts.diffusers.checkpoints.loading import load_checkpoint

    return load_checkpoint(HERE / "weights", dtype=torch.float32)


def _measure(options: argparse.Namespace) -> None:
    from ..files import read
    from ..progress import Progress
    from .measuring import Measurement

    seeds = range(options.seeds)
    with Progress(1, "measuring") as progress:

        def report(done: int, total: int) -> None:
            progress.total = total  # differs between the base model and a style
            progress.update(done)

        measured = Measurement(
            _shipped(),
            _pictures(options),
            steps=options.steps or 20,
            cfg=options.cfg,
            report=report,
        )
        figures = {"base": measured.base_figures(seeds)}
        say(json.dumps(figures, indent=1))
        for style in options.styles:
            network = read(HERE / "networks" / f"{style}.safetensors")
            figures[style] = measured.style_figures(network, style, seeds)
            say(json.dumps({style: figures[style]}, indent=1))

    (options.build / "figures.json").write_text(
        json.dumps(figures, indent=1) + "\n", encoding="utf-8"
    )


def _strips(options: argparse.Namespace) -> None:
    from .strips import draw_strips

    draw_strips(_shipped(), HERE / "networks", options.styles, Path("docs/pictures"))


TOOLS = {
    "pictures": _pictures,
    "autoencoder": _autoencoder,
    "base": _base,
    "decoder": _decoder,
    "styles": _styles,
    "assemble": _assemble,
    "networks": _networks,
    "measure": _measure,
    "strips": _strips,
}

if __name__ == "__main__":
    sys.exit(main())
