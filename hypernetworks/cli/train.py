"""The command ``train``."""

from __future__ import annotations

import argparse
import sys
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
    from pathlib import Path

    from ..hosts.diffusers import Painter
    from ..hosts.diffusers.training import Outcome, TrainingJob
    from ..training.creation import Creation
    from ..training.sources import Source

STOPPING = "hypernetworks: stopping after this step (Ctrl+C again stops at once)"
"""Printed at the first Ctrl+C."""


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train``."""
    add_options(parser)
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    """Do all runs that were asked for; one that fails doesn't stop those after it."""
    from .train_config import configured

    with _named(options.spelled):
        runs = list(configured(options, options.argv))
    code, many = 0, len(runs) > 1
    for number, own in enumerate(runs):
        if many:
            say(f"hypernetworks: run {number + 1} of {len(runs)}, {own.name}", sys.stderr)
        try:
            with _named(options.spelled):
                code = max(code, _train(own))
        except HypernetworkError as error:
            if not many:
                raise
            say(f"hypernetworks: {error}", sys.stderr)
            code = max(code, 2)
        if code == 130:  # stopped by the user, who means all of them
            break
    return code


def _train(options: argparse.Namespace) -> int:
    from ..hosts.diffusers.training import Watcher, train_job
    from ..training.processes import together
    from .model import load_painter
    from .train_report import Report

    _check_given(options)

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


def _check_given(options: argparse.Namespace) -> None:
    """Raises TrainingSettingsError where no name or no folder is typed or in a file."""
    if options.name is None:
        raise TrainingSettingsError("the network has no name: train NAME FOLDER")
    if not options.pictures and not options.sources:
        raise TrainingSettingsError(
            f"no folder of images is given: train {options.name} FOLDER, or --config FILE"
        )


def _sources(options: argparse.Namespace) -> tuple[Source, ...]:
    """The folders with all that is said of them."""
    from ..training.sources import Source, sources_of

    found: tuple[Source, ...] = options.sources or sources_of(
        tuple(options.pictures), options.repeats, options.folder_weights, options.masks
    )
    return (*found, *(Source(folder, is_prior=True) for folder in options.prior or ()))


def _check_start(options: argparse.Namespace) -> None:
    """Refuse options of a new network beside ``--network``, where they would be ignored.

    Raises:
        TrainingSettingsError: the message lists the options.
    """
    if options.network is None:
        return

    typed = [options.spelled[name] for name in STRUCTURE if getattr(options, name)]
    typed += ["--text-only"] if options.self_attention is False else []
    if typed:
        raise TrainingSettingsError(
            f"--network {options.network.name} keeps its own structure, so {', '.join(typed)} "
            "would have no effect: remove either --network or the rest"
        )


def _job(options: argparse.Namespace, painter: Painter) -> TrainingJob:
    """The preset's job, changed by the options that were given."""
    from ..hosts.diffusers.training import preset_job
    from ..hosts.diffusers.training.job import rate_with
    from ..training import TrainingSettings
    from ..training.pictures import PictureSettings

    _check_start(options)
    sources = _sources(options)
    first, *others = (source.path for source in sources)
    job = preset_job(options.preset, options.name, first, painter)

    # Options that were not given are None, so the preset's values stay.
    typed = {key: value for key, value in vars(options).items() if value is not None}
    if options.options is not None:
        typed["options"] = dict(options.options)

    settings = {f.name: typed[f.name] for f in fields(TrainingSettings) if f.name in typed}
    if "rate" not in typed and "optimiser" in typed:
        settings["rate"] = rate_with(typed["optimiser"], painter) or job.settings.rate
    pictures = {f.name: typed[f.name] for f in fields(PictureSettings) if f.name in typed}
    if options.size is not None:
        pictures["width"], pictures["height"] = options.size
    # A switch on the command line, but one of several ways to fit images in the settings.
    if options.buckets:
        pictures["fit"] = "buckets"

    return replace(
        job,
        runs=options.runs,
        creation=_creation(options, job),
        network=options.network,
        settings=replace(job.settings, **settings),
        picture_settings=replace(job.picture_settings, **pictures),
        suffix=f".{options.format}",
        previews=_previews(options),
        preview_seed=options.preview_seed,
        preview_steps=options.preview_steps,
        checkpointing=options.checkpointing,
        memory=options.memory,
        restart=options.restart,
        other_pictures=tuple(others),
        sources=sources,
        captioner=options.captioner,
        cache=options.cache,
        tensorboard=options.tensorboard,
        skip_bad=options.skip_bad,
        steps_by_images=options.steps is None,
        dry_run=options.dry_run,
    )


def _creation(options: argparse.Namespace, job: TrainingJob) -> Creation:
    """What was typed of the new network; weights begin as they do best on this model."""
    found = creation_of(options)
    if options.initialisation is not None:
        return found
    return replace(found, initialisation=job.creation.initialisation)


def _previews(options: argparse.Namespace) -> tuple[str, ...]:
    from ..training.prompts import read_prompts

    file: Path | None = options.preview_file
    return (*options.previews, *(read_prompts(file) if file is not None else ()))
