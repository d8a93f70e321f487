"""The commands ``create`` and ``train``: their arguments, and the work."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import HypernetworkError, StructureError
from .progress import Progress

if TYPE_CHECKING:
    from .engine.structure import Structure
    from .hosts.diffusers import Painter
    from .hosts.training import TrainingJob
    from .training.creation import Creation

FAMILIES: dict[str, tuple[int, ...]] = {
    "sd1": (320, 640, 768, 1280),
    "sd2": (320, 640, 1024, 1280),
    "sdxl": (640, 1280, 2048),
    "miniature": (96, 160, 192),
}
"""Context widths by model family; those of the text are below."""
TEXT_WIDTHS = {"sd1": 768, "sd2": 1024, "sdxl": 2048, "miniature": 192}
PURPOSES = ("style", "subject", "small")


def add_create(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``create``."""
    parser.add_argument("name", help="what tags will call it")
    parser.add_argument("-o", "--folder", type=Path, default=Path(), help="where NAME.pt goes (default: here)")
    parser.add_argument("--family", choices=sorted(FAMILIES), default="sd1", help="what model it is for")
    parser.add_argument("--widths", type=_integers, help="in place of the family's, such as 768,320,640,1280")
    _add_structure(parser)
    parser.add_argument("--format", choices=("pt", "safetensors"), default="pt", help="pt is read by every webui")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.set_defaults(command=_create)


def _add_structure(parser: argparse.ArgumentParser) -> None:
    """What a fresh network is made of; left out, the preset's."""
    group = parser.add_argument_group("a fresh network (left out: as the preset has it)")
    group.add_argument("--preset", choices=PURPOSES, default="style", help="what it is for (default: style)")
    group.add_argument("--layers", type=_floats, help="layer structure, such as 1,2,1")
    group.add_argument("--activation", help="linear, relu, leakyrelu, elu, swish, tanh, sigmoid, …")
    group.add_argument("--activate-output", action="store_true", help="the activation after the last layer as well")
    group.add_argument("--layer-norm", action="store_true")
    group.add_argument("--dropout", type=_floats, help="after each layer, such as 0,0.3,0; the first and last are 0")
    group.add_argument("--initialisation", metavar="NAME", default="Normal", help="Normal, XavierUniform, …")
    group.add_argument("--random-last", action="store_true", help="the last layer is drawn, too, not zero")
    group.add_argument("--text-only", action="store_true", help="no networks for self-attention")
    group.add_argument("--network-seed", type=int, default=0, metavar="SEED")


def _create(options: argparse.Namespace) -> int:
    from .engine.initialising import create_network, parameter_count
    from .files import write
    from .training.creation import check_name

    check_name(options.name)
    creation = _creation(options)
    widths = options.widths or FAMILIES[options.family]
    if not creation.self_attention and options.widths is None:
        widths = (TEXT_WIDTHS[options.family],)
    count = parameter_count(creation.structure, widths)
    path = options.folder / f"{options.name}.{options.format}"
    if path.exists() and not options.overwrite:
        raise HypernetworkError(f"{path} exists: choose another name, or add --overwrite")
    print(f"{count:,} numbers, {count * 4 / 2**20:.1f} MiB, for the widths {', '.join(map(str, sorted(widths)))}")
    network = create_network(
        options.name,
        creation.structure,
        widths,
        initialisation=creation.initialisation,
        zero_last=creation.zero_last,
        seed=creation.seed,
    )
    write(network, path)
    print(path)
    return 0


def _creation(options: argparse.Namespace) -> Creation:
    from .training.creation import Creation
    from .training.settings import PRESETS

    preset = PRESETS[options.preset]
    return Creation(
        structure=_structure(options),
        initialisation=options.initialisation,
        zero_last=not options.random_last,
        self_attention=preset.self_attention and not options.text_only,
        seed=options.network_seed,
    )


def _structure(options: argparse.Namespace) -> Structure:
    from .engine.structure import Structure
    from .training.settings import PRESETS

    preset = PRESETS[options.preset]
    layers = options.layers or preset.layer_structure
    dropout = options.dropout
    if dropout is None:
        dropout = preset.dropout if len(preset.dropout) == len(layers) else (0.0,) * len(layers)
    if dropout[0] or dropout[-1]:
        raise StructureError(f"the dropout {list(dropout)} must begin and end with 0, or AUTOMATIC1111 can't read it")
    return Structure(
        tuple(layers),
        options.activation or preset.activation,
        activate_output=options.activate_output,
        layer_norm=options.layer_norm,
        dropout=tuple(dropout),
    )


def add_train(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``train``. Those left out are the preset's."""
    parser.add_argument("name", help="of the network and of its run's folder")
    parser.add_argument("pictures", type=Path, help="folder of pictures, with captions in .txt files or file names")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    parser.add_argument("--checkpoint", type=Path, help="SD1/SD2/SDXL .safetensors, or a diffusers folder")
    parser.add_argument("--prediction", choices=("epsilon", "v_prediction"), help="for SD2: epsilon for 512 models")
    parser.add_argument("--device", default=None, help="such as cuda (default: cuda where there is one)")
    parser.add_argument("--network", type=Path, help="a file to go on from, in place of a fresh network")
    parser.add_argument("--format", choices=("pt", "safetensors"), default="pt", help="pt is read by every webui")
    parser.add_argument("--restart", action="store_true", help="throw an earlier run of this name away")
    _add_structure(parser)
    _add_pictures(parser.add_argument_group("pictures and captions"))
    _add_settings(parser.add_argument_group("training"))
    _add_previews(parser.add_argument_group("previews"))
    parser.set_defaults(command=_train, hypernetworks=[])


def _add_pictures(group: Any) -> None:
    group.add_argument("--size", type=_size, help="such as 512 or 512x768 (default: the model's own)")
    group.add_argument("--buckets", action="store_true", help="keep aspect ratios, rather than cropping to one size")
    group.add_argument("--crops", type=int, help="crops of each picture, spread over what doesn't fit")
    group.add_argument("--flip", action="store_true", default=None, help="mirrored pictures, too")
    group.add_argument("--alpha", action="store_true", default=None, help="what is transparent is not learned")
    group.add_argument("--spread", action="store_true", default=None, help="draw latents anew each time")
    group.add_argument("--template", help='"a picture of [name], [filewords]", or a .txt file of such lines')
    group.add_argument("--shuffle", action="store_true", default=None, help="tags in a new order each time")
    group.add_argument("--tag-dropout", type=float, help="leave out each tag with this probability")
    group.add_argument("--held-out", type=float, help="share of pictures for the held-out loss (default 0.1)")


def _add_settings(group: Any) -> None:
    group.add_argument("--steps", type=int)
    group.add_argument("--rate", help='learning rate: "1e-4", or "1e-4:500, 1e-5:2000"')
    group.add_argument("--shape", help="of the rate: constant, linear, cosine")
    group.add_argument("--warm-up", type=int, help="steps")
    group.add_argument("--restarts", type=int, help="how often the fall of the rate begins anew")
    group.add_argument("--optimiser", help="any of torch.optim by name (default AdamW)")
    group.add_argument("--option", dest="options", action="append", type=_option, metavar="NAME=VALUE")
    group.add_argument("--weight-decay", type=float)
    group.add_argument("--batch", type=int, help="pictures at once, over all processes")
    group.add_argument("--accumulation", type=int, help="batches per step")
    group.add_argument("--precision", help="auto, fp32, bf16, fp16")
    group.add_argument("--clip", type=float, help="largest gradient; 0 for no limit")
    group.add_argument("--clip-by", help="norm or value")
    group.add_argument("--min-snr", type=float, help="gamma of Min-SNR weighting, usually 5; 0 for none")
    group.add_argument("--noise-offset", type=float)
    group.add_argument("--ema", type=float, help="decay of the average that files hold, such as 0.999; 0 for none")
    group.add_argument("--caption-dropout", type=float, help="share of empty captions (default 0.1)")
    group.add_argument("--seed", type=int)
    group.add_argument("--save-every", type=int, metavar="STEPS")
    group.add_argument("--keep", type=int, help="files that stay; 0 for all")
    group.add_argument("--watch-every", type=int, metavar="STEPS", help="between held-out losses; 0 for none")
    group.add_argument("--checkpointing", choices=("auto", "on", "off"), default="auto", help="save memory")


def _add_previews(group: Any) -> None:
    group.add_argument("--preview", dest="previews", action="append", default=[], metavar="PROMPT", help="repeatable")
    group.add_argument("--preview-every", type=int, metavar="STEPS")
    group.add_argument("--preview-seed", type=int, default=0)
    group.add_argument("--preview-steps", type=int, default=20)


def _train(options: argparse.Namespace) -> int:
    from .cli import load_painter
    from .hosts.processes import together
    from .hosts.training import Watcher, train_job

    with together() as place, _interrupt() as is_interrupted:
        options.device = place.device(options.device)
        painter = load_painter(options)
        job = _job(options, painter)
        with _Report(job.name, quiet=not place.is_first) as report:
            watcher = Watcher(on_stage=report.stage, on_step=report.step, should_stop=is_interrupted)
            outcome = train_job(job, painter, watcher, keep_model=False)
        if place.is_first:
            for message in outcome.messages:
                print(f"hypernetworks: {message}", file=sys.stderr)
            if not outcome.is_finished:
                print(f"hypernetworks: stopped after step {outcome.step}; the same command goes on", file=sys.stderr)
            print(outcome.file or job.folder)
    return 0 if outcome.is_finished else 130


def _job(options: argparse.Namespace, painter: Painter) -> TrainingJob:
    """The preset's job with what was typed."""
    from .hosts.training import preset_job
    from .training import TrainingSettings
    from .training.pictures import PictureSettings

    job = preset_job(options.preset, options.name, options.pictures, painter)
    typed = {key: value for key, value in vars(options).items() if value is not None}
    if options.options is not None:
        typed["options"] = dict(options.options)
    settings = {f.name: typed[f.name] for f in fields(TrainingSettings) if f.name in typed}
    pictures = {f.name: typed[f.name] for f in fields(PictureSettings) if f.name in typed}
    if options.size is not None:
        pictures["width"], pictures["height"] = options.size
    if options.buckets:
        pictures["fit"] = "buckets"
    return replace(
        job,
        runs=options.runs,
        creation=_creation(options),
        network=options.network,
        settings=replace(job.settings, **settings),
        picture_settings=replace(job.picture_settings, **pictures),
        suffix=f".{options.format}",
        previews=tuple(options.previews),
        preview_seed=options.preview_seed,
        preview_steps=options.preview_steps,
        checkpointing=options.checkpointing,
        restart=options.restart,
    )


class _Report:
    """Progress lines for the stages and the steps."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._name, self._quiet, self._held_out = name, quiet, ""
        self._current: tuple[str, Progress] | None = None

    def __enter__(self) -> _Report:
        return self

    def __exit__(self, *error: object) -> None:
        self._show(None, 0, 0)

    def stage(self, stage: str, done: int, total: int) -> None:
        """Part of the preparation."""
        self._show(stage, done, total)

    def step(self, done: Any) -> None:
        """A finished step."""
        if done.held_out is not None:
            self._held_out = f"  held out {done.held_out:.4f}"
        note = f"loss {done.smoothed:.4f}{self._held_out}  rate {done.rate:.2g}"
        self._show(self._name, done.step, done.steps, note)

    def _show(self, label: str | None, done: int, total: int, note: str = "") -> None:
        if self._quiet:
            return
        if self._current is None or self._current[0] != label:
            if self._current is not None:
                self._current[1].__exit__(None, None, None)
            self._current = None if label is None else (label, Progress(total, label, initial=max(0, done - 1)))
        if self._current is not None:
            self._current[1].update(done, note)


@contextmanager
def _interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl+C ends the run after the step that is under way; the second ends it at once."""
    asked = [False]
    if threading.current_thread() is not threading.main_thread():  # signals are not ours to take
        yield lambda: False
        return

    def on_signal(number: int, frame: object) -> None:
        if asked[0]:
            raise KeyboardInterrupt
        asked[0] = True
        os.write(2, b"\nhypernetworks: stopping after this step\n")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is no list of whole numbers such as 768,320') from None


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is no list of numbers such as 1,2,1') from None


def _option(text: str) -> tuple[str, object]:
    """``betas=(0.9,0.95)`` -> a pair."""
    import ast

    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        raise argparse.ArgumentTypeError(f'"{text}" is no option such as momentum=0.9') from None


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isdigit() and len(part) < 6 for part in parts):
        raise argparse.ArgumentTypeError(f'"{text}" is not a size, write 512 or 512x768')
    return int(parts[0]), int(parts[-1])
