"""Training on a diffusers model: one function that does a whole job."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ....devices import empty_cache
from ....engine.initialising import can_begin_at_zero, create_network
from ....engine.network import Hypernetwork
from ....errors import FileWriteError, HypernetworkError, TrainingSettingsError
from ....files import read
from ....files.writing import replace as replace_file
from ....patching import apply
from ....training import Examples, Run, TrainingStep, train
from ....training.captions import read_template
from ....training.checkpoints import STATE, best_file, load_state, make_folder
from ....training.contexts import Condition, Contexts
from ....training.gathering import Gathered, Picture, gather, listed
from ....training.locking import locked
from ....training.overview import cropped, overview, steps_for
from ....training.pictures import load_examples, split_validation
from ....training.processes import World
from ....training.records import Log, save_curve, save_preview, save_sheet
from ....training.starting import check_options, check_state
from ....training.validation import ValidationLoss
from ..generation import Generation
from ..pipeline import Painter
from .frozen_model import FrozenModel
from .job import SETTINGS, Outcome, TrainingJob, Watcher, throw_away
from .memory import DONE, Plan
from .stored import FP8, STREAMED, WHOLE, has_fp8, stored

CURVE_EVERY = 25
"""Steps between drawings of the loss curve."""
COMPARED = ("model", "pictures", "settings.seed", "settings.batch", "settings.accumulation")
"""What a run should continue as it began; the rest may well be changed on the way."""


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
        self.keep_model = keep_model
        self.painter, self.watcher, self.model = painter, watcher, FrozenModel(painter.pipeline)
        self.job = replace(
            job,
            settings=replace(job.settings, precision=self.model.precision(job.settings.precision)),
        )
        self.is_first, self.messages = World().is_first, list[str]()
        self._is_stored = False
        step = job.picture_settings.step
        if step % painter.size_step and job.picture_settings.fit == "buckets":
            raise TrainingSettingsError(
                f"steps of {step} pixels are not possible: use multiples of {painter.size_step}",
                setting="step",
            )

        size = (job.picture_settings.width, job.picture_settings.height)
        self.model.check_size(*size, painter.size_step)

    def train(self) -> Outcome:
        job = self.job
        gathered = gather(job.folders, job.repeats)
        gathered.check(skip_bad=job.skip_bad)
        network = self._network()
        check_options(network, job.settings)
        read_template(job.picture_settings.template)

        with ExitStack() as stack:
            if self.is_first and not job.dry_run:
                stack.enter_context(locked(job.folder))
            state = None if job.restart else load_state(job.folder)
            if state is not None:
                check_state(state, network, job.settings, job.folder)
            self._compare()
            pictures, validation = self._split(gathered, state)
            self._report(gathered, pictures, validation)
            if job.dry_run:
                return Outcome(None, 0, True, tuple(self.messages))
            try:
                return self._train(network, pictures, validation, stack)
            except _StoppedEarlyError:
                step = 0 if state is None else int(state["step"])
                return Outcome(None, step, False, tuple(self.messages))

    def _train(
        self,
        network: Hypernetwork,
        pictures: list[Picture],
        validation: list[Picture],
        stack: ExitStack,
    ) -> Outcome:
        job = self.job
        size = (job.picture_settings.width, job.picture_settings.height)
        plan = self._plan(network, size)
        stack.enter_context(
            self.model.ready(
                job.settings.precision, size=size, keep=self.keep_model, storage=plan.storage
            )
        )
        contexts = Contexts(self._encode_texts)
        examples = self._examples(pictures, contexts)
        kept = self._validation(validation, contexts)
        if plan.checkpointing:
            self.model.save_memory()
        network.train()
        stack.enter_context(apply(self.model.unet, [(network, 1.0)]))
        run = Run(
            network,
            self.model.predict,
            examples,
            self.model.schedule,
            job.settings,
            folder=job.folder,
            suffix=job.suffix,
            validation=kept,
            device=self.model.device,
            save_memory=partial(self._save_memory, stack, plan.storage)
            if job.checkpointing == "auto"
            else None,
            every_width=set(network.widths) <= set(self.model.widths()),
            resume=not job.restart,
            held_out=[picture.key for picture in validation],
            on_warning=self._tell,
        )
        if self.is_first:
            self._prepare_folder()
        self._run(run)
        return self._outcome(run)

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

    def _split(
        self, gathered: Gathered, state: dict[str, Any] | None
    ) -> tuple[list[Picture], list[Picture]]:
        """What is learned from, and what is kept for validation, as earlier steps had it; sets the
        steps by it.
        """
        earlier: dict[str, bool] = {}
        if state is not None:
            earlier |= dict.fromkeys(state.get("seen", ()), False)
            earlier |= dict.fromkeys(state.get("held_out", ()), True)
        share, seed = self.job.picture_settings.validation, self.job.settings.seed
        pictures, validation = split_validation(gathered.pictures, share, seed, earlier)
        if self.job.steps_by_images:
            settings = self.job.settings
            count = sum(picture.repeats for picture in pictures)
            steps = steps_for(count, settings.samples_per_step, settings.steps)
            self.job = replace(self.job, settings=replace(settings, steps=steps))
        return pictures, validation

    def _report(
        self, gathered: Gathered, pictures: list[Picture], validation: list[Picture]
    ) -> None:
        """Say what will be learned, before anything is."""
        if not self.is_first:
            return
        for line in gathered.notes:
            self._tell(line)
        for line in gathered.left_out:
            self._tell(f"left out: {line}")
        for line in cropped(gathered.pictures, self.job.picture_settings):
            self._tell(line)
        lines = overview(pictures, validation, self.job.picture_settings, self.job.settings)
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

    def _encode_texts(self, texts: Sequence[str]) -> Sequence[Condition]:
        found = self.model.encode_texts(texts)
        if self.model.too_long is not None:
            self._tell(
                f"captions are longer than the {self.model.most_tokens} tokens that the model reads, so their ends "
                "are not learned: put what matters first, or shorten them "
                f'(one begins with "{self.model.too_long[:60]}")'
            )
        return found

    def _network(self) -> Hypernetwork:
        job = self.job
        if job.network is None:
            creation = job.creation
            zero_last = creation.zero_last and can_begin_at_zero(creation.structure)
            network = create_network(
                job.name,
                creation.structure,
                self.model.widths(creation.self_attention),
                initialisation=creation.initialisation,
                zero_last=zero_last,
                seed=creation.seed,
            )
        else:
            network = read(job.network)
            network.name = job.name
            network.to("cpu", torch.float32)

        network.to(self.model.device, torch.float32)
        network.provenance = replace(
            network.provenance,
            name=job.name,
            checkpoint_name=self.painter.model_name,
            checkpoint_hash=None,
        )
        return network

    def _prepare_folder(self) -> None:
        job = self.job
        if job.restart:
            throw_away(job)
        make_folder(job.folder)
        text = json.dumps(self._described(), indent=1, default=str) + "\n"
        replace_file(
            job.folder / SETTINGS, lambda temporary: temporary.write_text(text, encoding="utf-8")
        )

    def _described(self) -> dict[str, Any]:
        """All that the run is made of, for people and for :meth:`_compare`."""
        places = {name: str(getattr(self.job, name).resolve()) for name in ("pictures", "runs")}
        return {"model": self.painter.model_name, **asdict(self.job), **places}

    def _compare(self) -> None:
        """Tell what is different from the run that is continued, where the folder still says what
        that was.

        Raises:
            TrainingSettingsError: another network to begin with, which would be ignored.
        """
        job = self.job
        if job.restart or not (job.folder / STATE).exists():
            return

        try:
            earlier = json.loads((job.folder / SETTINGS).read_text(encoding="utf-8"))
            begun, before = (
                Path(earlier["network"] or "").name,
                {what: _inside(earlier, what) for what in COMPARED},
            )
        except (OSError, ValueError, KeyError, TypeError):
            return

        if job.network is not None and job.network.name != begun:
            raise TrainingSettingsError(
                f"{job.folder} holds a run that did not start from {job.network.name}, which would be ignored: use "
                "another name, or start over (`restart`)"
            )

        now = self._described()
        for what, value in before.items():
            if value != (asked := _inside(now, what)):
                self._tell(
                    f"`{what.rpartition('.')[2]}` was {value} in earlier steps and is {asked} from here on"
                )

    def _examples(self, pictures: Sequence[Picture], contexts: Contexts) -> Examples:
        job = self.job
        skipped: list[tuple[str, str]] | None = [] if job.skip_bad else None
        self._stage("encoding images", 0, len(pictures))
        examples = load_examples(
            pictures,
            job.picture_settings,
            self.model.encode_pixels,
            name=job.name,
            report=lambda done, total: self._stage("encoding images", done, total),
            skipped=skipped,
        )
        if skipped:
            self._tell(f"left out, as they can't be used: {listed(skipped)}")
        self._stage("encoding captions", 0, 1)
        made = Examples(
            examples,
            contexts,
            batch=job.settings.samples_per_step,
            caption_dropout=job.settings.caption_dropout,
            seed=job.settings.seed,
        )
        wordless = [example.name for example in examples if example.caption.is_empty]
        if wordless:
            self._tell(
                f"{len(wordless)} of {len(examples)} images have no caption, such as {wordless[0]}: write captions "
                'in text files or file names, or use a `template` such as "a picture of [name]"'
            )

        self._stage("encoding captions", 1, 1)
        return made

    def _validation(self, paths: Sequence[Picture], contexts: Contexts) -> ValidationLoss | None:
        if not paths or not self.job.settings.watch_every or not self.is_first:
            return None
        settings = replace(self.job.picture_settings, crops=1, flip=False, spread=False)
        examples = load_examples(
            paths,
            settings,
            self.model.encode_pixels,
            name=self.job.name,
            skipped=[] if self.job.skip_bad else None,
        )
        return ValidationLoss(examples, contexts, self.job.settings.seed)

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

        self._tell(f"memory ran out, so {done}: a smaller batch would be faster")
        return True

    def _run(self, run: Run) -> None:
        job = self.job
        if run.is_finished:
            self._tell(f"{job.folder} holds a finished run: set more `steps`, or `restart` it")
        log = Log(job.folder, run.step) if self.is_first else None
        previews = job.settings.preview_every if job.previews and self.is_first else 0
        if previews and run.step == 0:
            self._preview(run)

        def on_step(done: TrainingStep) -> None:
            assert log is not None
            with self._not_ending():
                log.add(done)
            self.watcher.on_step(done)
            if previews and (done.step % previews == 0 or run.is_finished):
                self._preview(run)
            if done.step % CURVE_EVERY == 0 or run.is_finished:
                with self._not_ending():
                    save_curve(log.rows, job.folder, job.name)

        try:
            train(run, on_step=on_step, should_stop=self.watcher.should_stop)
        finally:
            if log is not None and log.rows:
                with self._not_ending():
                    save_curve(log.rows, job.folder, job.name)

    @contextmanager
    def _not_ending(self) -> Iterator[None]:
        """What is only for looking at ends no training, such as a table that is open in another
        program.
        """
        try:
            yield
        except (OSError, FileWriteError) as error:
            self._tell(f"{error}; training continues")

    def _preview(self, run: Run) -> None:
        """Generate all preview prompts with the current network; a prompt that fails adds a
        message.
        """
        job, made = self.job, []
        size, total = job.picture_settings, job.preview_steps * len(job.previews)

        def on_step(done: int, of: int) -> bool:
            self.watcher.on_preview_progress(
                number * job.preview_steps + done * job.preview_steps // of, total
            )
            return not self.watcher.should_stop()

        with run.at_rest(), self.model.at_hand():
            for number, prompt in enumerate(job.previews):
                work = Generation(
                    prompt,
                    steps=job.preview_steps,
                    seed=job.preview_seed,
                    width=size.width,
                    height=size.height,
                )
                try:
                    result = self.painter.generate(work, on_step, keep_precision=True)
                except HypernetworkError as error:
                    self._tell(f'the preview "{prompt}": {error}')
                    continue
                for message in result.messages:
                    self._tell(f'the preview "{prompt}": {message}')
                if (
                    self.watcher.should_stop()
                ):  # it may not be finished, and shall not stand beside others
                    return
                made.append(result.pictures[0].image)
                with self._not_ending():
                    save_preview(job.folder, run.step, number, made[-1])
        if made:
            with self._not_ending():
                save_sheet(job.folder, run.step)
            self.watcher.on_preview(run.step, made)

    def _outcome(self, run: Run) -> Outcome:
        job = self.job
        file = job.folder / f"{job.name}-{run.network.provenance.step}{job.suffix}"
        best = best_file(job.folder, job.name, job.suffix)
        has_best = run.best.step > 0 and best.exists()
        return Outcome(
            file if file.exists() else None,
            run.step,
            run.is_finished,
            tuple(self.messages),
            best if has_best else None,
            run.best.step,
            run.best.loss,
        )


class _StoppedEarlyError(Exception):
    """Asked to stop before the first step."""


def _inside(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree[key]
    return tree
