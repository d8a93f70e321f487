"""Training on a diffusers model: one function that does a whole job."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from ....devices import empty_cache
from ....engine.network import Hypernetwork
from ....errors import TrainingSettingsError
from ....patching import apply
from ....training import Examples, Run, train
from ....training.captions import read_template
from ....training.checkpoints import load_state
from ....training.locking import locked
from ....training.processes import World
from ....training.starting import check_options, check_state
from ....training.validation import ValidationLoss
from ..pipeline import Painter
from .folder import differences, prepare
from .frozen_model import FrozenModel
from .images import Images
from .job import Outcome, TrainingJob, Watcher
from .memory import DONE, Plan
from .networks import network_of, outcome_of
from .previewing import Previews
from .recording import Recorder
from .stored import FP8, STREAMED, WHOLE, has_fp8, stored
from .told import told_of


def train_job(
    job: TrainingJob, painter: Painter, watcher: Watcher | None = None, *, keep_model: bool = True
) -> Outcome:
    """Train as the job says, from the beginning or from where its folder is.

    Args:
        painter: nothing else may use it meanwhile; it is as before afterwards.
        keep_model: ``False`` may round the painter's weights, which needs less memory: for
            processes that end with it.

    Raises:
        TrainingDataError, TrainingSettingsError, TrainingStateError: found before anything is
            changed.
        DivergenceError: the run went wrong; the last good state is kept.
        CheckpointError, FileError, PatchError: of the model, or of the file to go on from.
    """
    return _Session(job, painter, watcher or Watcher(), keep_model).train()


class _Session:
    """One job under way."""

    def __init__(
        self, job: TrainingJob, painter: Painter, watcher: Watcher, keep_model: bool
    ) -> None:
        self.keep_model, self.painter, self.watcher = keep_model, painter, watcher
        size = job.picture_settings
        self.model = FrozenModel(
            painter.pipeline, max_tokens=size.max_tokens, clip_skip=size.clip_skip
        )
        precision = self.model.precision(job.settings.precision)
        self.job = replace(job, settings=replace(job.settings, precision=precision))
        self.is_first, self.messages = World().is_first, list[str]()
        self._is_stored = False

        if size.step % painter.size_step and size.fit == "buckets":
            raise TrainingSettingsError(
                f"steps of {size.step} pixels are not possible: use multiples of "
                f"{painter.size_step}",
                setting="step",
            )
        self.model.check_size(size.width, size.height, painter.size_step)

    def train(self) -> Outcome:
        """Check everything that can be checked, report, then train."""
        job = self.job
        # What is cheap to check comes first: nobody should wait for an error.
        images = Images(job, self.model, self._tell, self._stage)
        network = network_of(job, self.model, self.painter.model_name)
        check_options(network, job.settings)
        read_template(job.picture_settings.template)

        with ExitStack() as stack:
            # Held to the end, so that a second process can't write into the same folder.
            if self.is_first and not job.dry_run:
                stack.enter_context(locked(job.folder))
            state = None if job.restart else load_state(job.folder)
            if state is not None:
                check_state(state, network, job.settings, job.folder)
            for line in differences(job, self.painter.model_name):
                self._tell(line)

            try:
                self._prepare(images, state)
                if job.dry_run:
                    return Outcome(None, 0, True, tuple(self.messages))
                return self._train(network, images, stack)
            except _StoppedEarlyError:
                step = 0 if state is None else int(state["step"])
                return Outcome(None, step, False, tuple(self.messages))

    def _prepare(self, images: Images, state: dict[str, Any] | None) -> None:
        """Split the images, set the steps by them, and say what will be learned."""
        images.split(state)
        if self.job.steps_by_images:
            settings = replace(self.job.settings, steps=images.steps())
            self.job = replace(self.job, settings=settings)
        if not self.job.dry_run:
            images.add_captions()
        if self.is_first:
            lines = images.report(self.job.settings)
            self.watcher.on_overview([*lines, f"{self.painter.model_name}: {self._prediction()}"])

    def _prediction(self) -> str:
        kind = "v" if self.model.schedule.prediction == "v_prediction" else "noise (epsilon)"
        found = getattr(self.painter.pipeline, "prediction_source", None)
        return f"predicts {kind}" + (f", {found}" if found else "")

    def _tell(self, message: str) -> None:
        if message not in self.messages:
            self.messages.append(message)
            self.watcher.on_message(message)

    def _stage(self, stage: str, done: int, total: int) -> None:
        """Say how far the preparation is, which also may be stopped."""
        self.watcher.on_stage(stage, done, total)
        if self.watcher.should_stop():
            raise _StoppedEarlyError

    def _train(self, network: Hypernetwork, images: Images, stack: ExitStack) -> Outcome:
        job, size = self.job, self.job.picture_settings
        shape = (size.width, size.height)
        plan = self._plan(network, shape)
        stack.enter_context(
            self.model.ready(
                job.settings.precision, size=shape, keep=self.keep_model, storage=plan.storage
            )
        )
        contexts = images.contexts()
        examples = images.examples(contexts)
        name = self.painter.model_name
        validation = images.validation(contexts, name) if self.is_first else None
        if plan.checkpointing:
            self.model.save_memory()

        told = told_of(
            job,
            job.settings,
            self.painter.model_name,
            images.learned,
            images.kept,
            network.provenance.optional,
        )
        network.provenance = replace(network.provenance, optional=told)
        # The patch must find live parameters, or it would collapse a linear network.
        network.train()
        stack.enter_context(apply(self.model.unet, [(network, 1.0)]))
        save_memory = partial(self._save_memory, stack, plan.storage)
        held_out = [picture.key for picture in images.kept]
        run = self._made(network, examples, validation, held_out, save_memory)
        if self.is_first:
            prepare(job, name, self.painter.checkpoint, run.best.begun)
        self._run(run)
        return outcome_of(job, run, self.messages)

    def _made(
        self,
        network: Hypernetwork,
        examples: Examples,
        validation: ValidationLoss | None,
        held_out: list[str],
        save_memory: Callable[[], bool],
    ) -> Run:
        job = self.job
        return Run(
            network,
            self.model.predict,
            examples,
            self.model.schedule,
            job.settings,
            folder=job.folder,
            suffix=job.suffix,
            validation=validation,
            device=self.model.device,
            save_memory=save_memory if job.checkpointing == "auto" else None,
            every_width=set(network.widths) <= set(self.model.widths()),
            resume=not job.restart,
            held_out=held_out,
            on_warning=self._tell,
        )

    def _plan(self, network: Hypernetwork, size: tuple[int, int]) -> Plan:
        """How training fits into the device's memory; a message where something had to be done."""
        job = self.job
        plan = self.model.plan(
            job.settings.precision,
            sum(parameter.numel() for parameter in network.parameters()),
            len(World().share(job.settings.batch)),
            size,
            job.memory,
            job.checkpointing,
        )
        if plan.message:
            self._tell(plan.message)
        return plan

    def _save_memory(self, stack: ExitStack, storage: str) -> bool:
        """Memory ran out: take the next measure; returns whether there was one."""
        if self.model.save_memory():
            done = "gradient checkpointing is on"
        elif storage == WHOLE and self.job.memory == "auto" and not self._is_stored:
            self._is_stored = True
            storage = FP8 if has_fp8(self.model.device) else STREAMED
            stack.enter_context(stored(self.model.unet, storage, keep=self.keep_model))
            empty_cache(self.model.device)
            done = DONE[storage]
        else:
            return False

        self._tell(f"memory ran out, so {done}: a smaller `batch` would be faster")
        return True

    def _run(self, run: Run) -> None:
        job = self.job
        if run.is_finished:
            self._tell(f"{job.folder} holds a finished run: set more `steps`, or `restart` it")
        if not self.is_first:  # the other processes only compute
            train(run, should_stop=self.watcher.should_stop)
            return

        previews = Previews(job, self.painter, self.model, self.watcher, self._tell)
        recorder = Recorder(job, run, previews, self.watcher, self._tell)
        recorder.begin()
        try:
            train(run, on_step=recorder.step, should_stop=self.watcher.should_stop)
        finally:
            recorder.end()


class _StoppedEarlyError(Exception):
    """Asked to stop before the first step."""
