"""The command ``train``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import pasted_path, say
from ..ending import noticed
from ..errors import TrainingSettingsError
from ..progress import Progress
from .create import STRUCTURE, add_structure, creation_of
from .model import add_device
from .values import integers, option, size

if TYPE_CHECKING:
    from ..hosts.diffusers import Painter
    from ..hosts.diffusers.training import Outcome, TrainingJob

STOPPING = "hypernetworks: stopping after this step (Ctrl+C again stops at once)"
"""Said when a training is asked to end."""


def add_train(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``train``. Those left out are the preset's."""
    parser.add_argument("name", help="name of the network and of its run's folder")
    parser.add_argument(
        "pictures",
        type=pasted_path,
        nargs="+",
        help="folders of images, or of sub-folders named 10_name, with captions in .txt files or file names",
    )
    parser.add_argument(
        "--runs", type=pasted_path, default=Path("runs"), help="folder of runs (default: runs)"
    )
    parser.add_argument(
        "--checkpoint", type=pasted_path, help="SD1/SD2/SDXL .safetensors, or a diffusers folder"
    )
    parser.add_argument(
        "--prediction", choices=("epsilon", "v_prediction"), help="for SD2: epsilon for 512 models"
    )
    add_device(parser, precision=False)
    parser.add_argument(
        "--network", type=pasted_path, help="a file to start from instead of a new network"
    )
    parser.add_argument(
        "--format", choices=("pt", "safetensors"), default="pt", help="every webui reads pt"
    )
    parser.add_argument("--restart", action="store_true", help="delete an earlier run of this name")
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what would be learned, then end"
    )
    add_structure(parser)
    _add_pictures(parser.add_argument_group("images and captions"))
    _add_settings(parser.add_argument_group("training"))
    _add_previews(parser.add_argument_group("previews"))
    spelled = {a.dest: a.option_strings[0] for a in parser._actions if a.option_strings}
    parser.set_defaults(command=_run, hypernetworks=[], spelled=spelled)


def _add_pictures(group: Any) -> None:
    _add_shapes(group)
    _add_captions(group)
    group.add_argument(
        "--repeats",
        type=integers,
        default=(),
        help="how often the images of each folder come, such as 10,1 for two folders",
    )
    group.add_argument(
        "--skip-bad", action="store_true", help="leave out images that can't be read"
    )
    group.add_argument(
        "--validation",
        "--held-out",
        type=float,
        help="share of images kept for the validation loss (default: 0.1)",
    )


def _add_shapes(group: Any) -> None:
    group.add_argument(
        "--size",
        "--resolution",
        type=size,
        help="such as 512 or 512x768 (default: the model's own)",
    )
    group.add_argument(
        "--buckets", action="store_true", help="keep aspect ratios instead of cropping to one size"
    )
    group.add_argument(
        "--crops", type=int, help="crops of each image, spread over the part that doesn't fit"
    )
    group.add_argument(
        "--flip", action="store_true", default=None, help="also train on mirrored images"
    )
    group.add_argument(
        "--alpha", action="store_true", default=None, help="ignore transparent areas"
    )
    group.add_argument(
        "--spread",
        action="store_true",
        default=None,
        help="sample latents from the VAE's distribution each time",
    )


def _add_captions(group: Any) -> None:
    group.add_argument(
        "--template", help='"a picture of [name], [filewords]", or a .txt file of such lines'
    )
    group.add_argument(
        "--shuffle", action="store_true", default=None, help="shuffle the tags of a caption"
    )
    group.add_argument(
        "--tag-dropout", type=float, help="probability of leaving out each tag of a caption"
    )
    group.add_argument(
        "--caption-lines",
        action="store_true",
        default=None,
        help="each line of a caption file is a caption; one is drawn each time",
    )


def _add_settings(group: Any) -> None:
    """The field's own spellings are accepted beside ours."""
    _add_optimisation(group)
    _add_loss(group)
    _add_saving(group)


def _add_optimisation(group: Any) -> None:
    group.add_argument(
        "--steps", type=int, help="optimizer steps (default: by the number of images)"
    )
    group.add_argument(
        "--until",
        choices=("steps", "best"),
        help="best: stop when the validation loss has not fallen for long (default: steps)",
    )
    group.add_argument(
        "--rate",
        "--learning-rate",
        "--lr",
        help='learning rate: "1e-4", or "1e-4:500, 1e-5:2000"',
    )
    group.add_argument(
        "--shape",
        "--lr-scheduler",
        help="schedule of the learning rate: constant, linear or cosine (default: cosine for one rate)",
    )
    group.add_argument("--warm-up", "--lr-warmup-steps", type=int, help="steps of warm-up")
    group.add_argument("--restarts", type=int, help="restarts of the decay")
    group.add_argument(
        "--optimiser", "--optimizer", help="any of torch.optim by name (default: AdamW)"
    )
    group.add_argument(
        "--option",
        dest="options",
        action="append",
        type=option,
        metavar="NAME=VALUE",
        help="an argument of the optimizer; repeatable",
    )
    group.add_argument("--weight-decay", type=float, help="weight decay of the optimizer")
    group.add_argument(
        "--batch", "--train-batch-size", type=int, help="images at once, over all processes"
    )
    group.add_argument(
        "--accumulation", "--gradient-accumulation-steps", type=int, help="batches per step"
    )
    group.add_argument("--precision", "--mixed-precision", help="auto, fp32, bf16 or fp16")
    group.add_argument(
        "--checkpointing",
        "--gradient-checkpointing",
        choices=("auto", "on", "off"),
        nargs="?",
        const="on",
        default="auto",
        help="gradient checkpointing, saves memory (default: auto)",
    )
    group.add_argument(
        "--memory",
        choices=("auto", "whole", "fp8", "streamed"),
        default="auto",
        help="how the UNet is stored: whole, in fp8, on the CPU, or what fits (default: auto)",
    )
    group.add_argument(
        "--clip", "--max-grad-norm", type=float, help="largest gradient; 0 for no limit"
    )
    group.add_argument("--clip-by", help="norm or value")


def _add_loss(group: Any) -> None:
    group.add_argument(
        "--min-snr",
        "--min-snr-gamma",
        type=float,
        help="gamma of Min-SNR weighting, usually 5; 0 for none",
    )
    group.add_argument("--noise-offset", type=float, help="strength of offset noise; 0 for none")
    group.add_argument(
        "--ema", type=float, help="decay of the weights' moving average, such as 0.999; 0 for none"
    )
    group.add_argument(
        "--caption-dropout", type=float, help="share of empty captions (default: 0.1)"
    )
    group.add_argument("--seed", type=int, help="seed of everything random in the run")


def _add_saving(group: Any) -> None:
    group.add_argument("--save-every", type=int, metavar="STEPS", help="steps between checkpoints")
    group.add_argument("--keep", type=int, help="checkpoints to keep; 0 for all")
    group.add_argument(
        "--watch-every",
        type=int,
        metavar="STEPS",
        help="steps between validation losses; 0 for none",
    )


def _add_previews(group: Any) -> None:
    group.add_argument(
        "--preview",
        dest="previews",
        action="append",
        default=[],
        metavar="PROMPT",
        help="repeatable",
    )
    group.add_argument("--preview-every", type=int, metavar="STEPS")
    group.add_argument("--preview-seed", type=int, default=0)
    group.add_argument("--preview-steps", type=int, default=20)


def _run(options: argparse.Namespace) -> int:
    from ..hosts.diffusers.training import Watcher, train_job
    from ..training.processes import together
    from .model import load_painter

    with together(options.device) as world, noticed(STOPPING) as ending:
        options.device = world.device(options.device)
        painter = load_painter(options)
        job = _named(options, lambda: _job(options, painter))
        with _Report(job.name, quiet=not world.is_first) as report:
            watcher = Watcher(
                report.stage,
                report.step,
                report.generating,
                on_message=report.message,
                on_overview=report.overview,
                should_stop=lambda: bool(ending),
            )
            outcome = train_job(job, painter, watcher, keep_model=False)

        if world.is_first:
            if not outcome.is_finished:
                command = (
                    "the same command without --restart" if job.restart else "the same command"
                )
                say(
                    f"hypernetworks: stopped after step {outcome.step}; {command} continues",
                    sys.stderr,
                )
            if job.dry_run:
                return 0
            _print_result(outcome, job)
    return 0 if outcome.is_finished else 130


def _print_result(outcome: Outcome, job: TrainingJob) -> None:
    """The file to use, alone on stdout; and why it is that one."""
    if outcome.best is not None:
        last = "" if outcome.file is None else f"; the last is {outcome.file.name}"
        say(
            f"hypernetworks: the best is {outcome.best.name}, of step {outcome.best_step} with validation loss "
            f"{outcome.best_loss:.4f}{last}",
            sys.stderr,
        )
    say(str(outcome.result or job.folder))


def _named(options: argparse.Namespace, make: Callable[[], TrainingJob]) -> TrainingJob:
    """What ``make`` gives; its errors name options as they are typed."""
    try:
        return make()
    except TrainingSettingsError as error:
        option = {"fit": "--buckets"}.get(
            error.setting or "", options.spelled.get(error.setting, error.setting)
        )
        raise TrainingSettingsError(error.called(option)) from error


def _check_start(options: argparse.Namespace) -> None:
    """Refuse what would be ignored: a network that is continued keeps its structure.

    Raises:
        TrainingSettingsError: with the options.
    """
    if options.network is None:
        return
    typed = [options.spelled[name] for name in STRUCTURE if getattr(options, name)]
    if typed:
        raise TrainingSettingsError(
            f"--network {options.network.name} keeps its own structure, so {', '.join(typed)} would be ignored: leave "
            "one of them out"
        )


def _job(options: argparse.Namespace, painter: Painter) -> TrainingJob:
    """The preset's job with what was typed."""
    from ..hosts.diffusers.training import preset_job
    from ..training import TrainingSettings
    from ..training.pictures import PictureSettings

    _check_start(options)
    first, *others = options.pictures
    job = preset_job(options.preset, options.name, first, painter)
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
        creation=creation_of(options),
        network=options.network,
        settings=replace(job.settings, **settings),
        picture_settings=replace(job.picture_settings, **pictures),
        suffix=f".{options.format}",
        previews=tuple(options.previews),
        preview_seed=options.preview_seed,
        preview_steps=options.preview_steps,
        checkpointing=options.checkpointing,
        memory=options.memory,
        restart=options.restart,
        other_pictures=tuple(others),
        repeats=options.repeats,
        skip_bad=options.skip_bad,
        steps_by_images=options.steps is None,
        dry_run=options.dry_run,
    )


class _Report:
    """Progress lines for the stages and the steps."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._name, self._quiet, self._validation = name, quiet, ""
        self._current: tuple[str, Progress] | None = None
        self._steps: tuple[int, int] | None = None

    def __enter__(self) -> _Report:
        return self

    def __exit__(self, *error: object) -> None:
        self._show(None, 0, 0)

    def stage(self, stage: str, done: int, total: int) -> None:
        """Part of the preparation."""
        self._show(stage, done, total)

    def step(self, done: Any) -> None:
        """A finished step."""
        if done.validation is not None:
            self._validation = f"  validation {done.validation:.4f}"
        note = f"loss {done.smoothed:.4f}{self._validation}  rate {done.rate:.2g}"
        self._steps = done.step, done.steps
        self._show(self._name, *self._steps, note)

    def generating(self, done: int, total: int) -> None:
        """Part of the previews: on a line of its own before the first step, later beside the
        steps.
        """
        if self._steps is None:
            self._show("generating previews", done, total)
        else:
            self._show(self._name, *self._steps, f"generating previews {done}/{total}")

    def overview(self, lines: Sequence[str]) -> None:
        """What will be learned, a sentence on each line."""
        for line in lines:
            self.message(line)

    def message(self, text: str) -> None:
        """What the user should know, on a line of its own."""
        self._show(None, 0, 0)
        if not self._quiet:
            say(f"hypernetworks: {text}", sys.stderr)

    def _show(self, label: str | None, done: int, total: int, note: str = "") -> None:
        if self._quiet:
            return
        if self._current is None or self._current[0] != label:
            if self._current is not None:
                self._current[1].__exit__(None, None, None)
            self._current = (
                None if label is None else (label, Progress(total, label, initial=max(0, done - 1)))
            )
        if self._current is not None:
            self._current[1].update(done, note)
