"""The command ``train``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from ..console import say, warn
from ..ending import noticed
from ..errors import HypernetworkError, TrainingSettingsError
from .create import STRUCTURE, creation_of
from .train_options import add_options

if TYPE_CHECKING:
    from ..hosts.diffusers import Painter
    from ..hosts.diffusers.training import Outcome, TrainingJob

STOPPING = "hypernetworks: stopping after this step (Ctrl+C again stops at once)"
"""Printed at the first Ctrl+C."""


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train``."""
    add_options(parser)
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    with _named(options.spelled):
        return _train(options)


def _train(options: argparse.Namespace) -> int:
    from ..hosts.diffusers.training import Watcher, train_job
    from ..training.processes import together
    from .model import load_painter
    from .train_report import Report

    # torchrun starts this command in several processes, each with a device of its own.
    with together(options.device) as world, noticed(STOPPING) as ending:
        options.device = world.device(options.device)
        painter = load_painter(options)
        job = _job(options, painter)
        with Report(job.name, options.spelled, quiet=not world.is_first) as report:
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
                warn(f"hypernetworks: stopped after step {outcome.step}; {command} continues")
            if job.dry_run:
                return 0
            _print_result(outcome, job)
    return 0 if outcome.is_finished else 130


def _print_result(outcome: Outcome, job: TrainingJob) -> None:
    """Print the file to use, and say why it is that one."""
    # Only the path goes to the standard output, so that scripts can read it.
    if outcome.best is not None:
        last = "" if outcome.file is None else f"; the last is {outcome.file.name}"
        warn(
            f"hypernetworks: the best is {outcome.best.name}, of step {outcome.best_step} with "
            f"validation loss {outcome.best_loss:.4f}{last}"
        )
    say(str(outcome.result or job.folder))


@contextmanager
def _named(names: Mapping[str, str]) -> Iterator[None]:
    """Errors inside name options as they are typed."""
    from ..training.naming import spelled

    try:
        yield
    except HypernetworkError as error:
        text = str(error)
        if isinstance(error, TrainingSettingsError) and error.setting is not None:
            text = error.called(names.get(error.setting, error.setting))
        error.args = (spelled(text, names),)
        raise


def _check_start(options: argparse.Namespace) -> None:
    """Refuse options of a new network beside ``--network``, where they would be ignored.

    Raises:
        TrainingSettingsError: the message lists the options.
    """
    if options.network is None:
        return

    typed = [options.spelled[name] for name in STRUCTURE if getattr(options, name)]
    if typed:
        raise TrainingSettingsError(
            f"--network {options.network.name} keeps its own structure, so {', '.join(typed)} "
            "would have no effect: remove either --network or the rest"
        )


def _job(options: argparse.Namespace, painter: Painter) -> TrainingJob:
    """The preset's job, changed by the options that were given."""
    from ..hosts.diffusers.training import preset_job
    from ..training import TrainingSettings
    from ..training.optimisers import usual_rate
    from ..training.pictures import PictureSettings

    _check_start(options)
    first, *others = options.pictures
    job = preset_job(options.preset, options.name, first, painter)

    # Options that were not given are None, so the preset's values stay.
    typed = {key: value for key, value in vars(options).items() if value is not None}
    if options.options is not None:
        typed["options"] = dict(options.options)

    settings = {f.name: typed[f.name] for f in fields(TrainingSettings) if f.name in typed}
    if "rate" not in typed and (rate := usual_rate(settings.get("optimiser", "AdamW"))):
        settings["rate"] = rate
    pictures = {f.name: typed[f.name] for f in fields(PictureSettings) if f.name in typed}
    if options.size is not None:
        pictures["width"], pictures["height"] = options.size
    # A switch on the command line, but one of several ways to fit images in the settings.
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
