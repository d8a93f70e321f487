"""Training on a diffusers model: one record for a whole job, and one function that does it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..engine.initialising import can_begin_at_zero, create_network
from ..engine.network import Hypernetwork
from ..engine.structure import Structure
from ..errors import HypernetworkError, TrainingSettingsError
from ..files import read
from ..files.writing import replace as replace_file
from ..patching import apply
from ..training import PRESETS, Examples, Run, TrainingSettings, TrainingStep, train
from ..training.checkpoints import STATE, make_folder, saved_networks
from ..training.contexts import Contexts
from ..training.creation import Creation, check_name
from ..training.held_out import HeldOut
from ..training.pictures import PictureSettings, find_pictures, load_examples, split_held_out
from ..training.processes import World
from ..training.records import Log, save_curve, save_preview, save_sheet
from .diffusers import Generation, Painter
from .training_model import FrozenModel

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".safetensors", ".pt")
CHECKPOINTINGS = ("auto", "on", "off")
CURVE_EVERY = 25
"""Steps between drawings of the loss curve."""


@dataclass(frozen=True)
class TrainingJob:
    """Everything that one training is made of, apart from the loaded model. Checked when made.

    Attributes:
        name: of the network, as tags will call it (with ``-STEP``), and of the run's folder.
        pictures: folder to learn from.
        runs: folder of runs; this one's is ``runs/name``. What is there is continued.
        creation: of a fresh network.
        network: file to go on from, in place of a fresh one.
        settings, picture_settings: see their classes.
        suffix: of the files written, ``.safetensors`` or ``.pt``.
        previews: prompts that are painted every ``settings.preview_every`` steps, and before the first.
        preview_seed, preview_steps: of all previews, so that they can be compared.
        checkpointing: whether activations are computed twice to save memory: ``"auto"`` does so when memory runs out.
        restart: whether a run that is in the folder is thrown away rather than continued.
    """

    name: str
    pictures: Path
    runs: Path = Path("runs")
    creation: Creation = field(default_factory=Creation)
    network: Path | None = None
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    picture_settings: PictureSettings = field(default_factory=PictureSettings)
    suffix: str = ".safetensors"
    previews: tuple[str, ...] = ()
    preview_seed: int = 0
    preview_steps: int = 20
    checkpointing: str = "auto"
    restart: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        for what, known in (("suffix", SUFFIXES), ("checkpointing", CHECKPOINTINGS)):
            if getattr(self, what) not in known:
                raise TrainingSettingsError(f'{what} is "{getattr(self, what)}", use one of {", ".join(known)}')

    @property
    def folder(self) -> Path:
        """Of this run."""
        return self.runs / self.name


@dataclass(frozen=True)
class Outcome:
    """What a job came to.

    Attributes:
        file: the last file written, if any.
        step: finished steps.
        is_finished: ``False`` where it was stopped; the same job goes on from there.
        messages: what the user should know.
    """

    file: Path | None
    step: int
    is_finished: bool
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Watcher:
    """Who is told of a job, all in the thread that trains; each may be left out.

    Attributes:
        on_stage: what is being prepared, done and total: ``("encoding pictures", 12, 100)``.
        on_step: after every finished step.
        on_preview: step, and one picture per prompt.
        should_stop: asked after every step; ``True`` saves and ends the run.
    """

    on_stage: Callable[[str, int, int], object] = lambda *_: None
    on_step: Callable[[TrainingStep], object] = lambda *_: None
    on_preview: Callable[[int, Sequence[Image]], object] = lambda *_: None
    should_stop: Callable[[], bool] = lambda: False


def preset_job(preset: str, name: str, pictures: Path, painter: Painter, **changes: object) -> TrainingJob:
    """The job that a preset makes for a loaded model, with ``changes`` to its fields.

    The miniature learns fast: there the presets have a higher rate, larger batches and fewer steps.

    Raises:
        TrainingSettingsError: no such preset.
    """
    if preset not in PRESETS:
        raise TrainingSettingsError(f'the preset "{preset}" is unknown, use one of {", ".join(PRESETS)}')
    chosen = PRESETS[preset]
    structure = Structure(chosen.layer_structure, chosen.activation, activate_output=False, dropout=chosen.dropout)
    settings, size = chosen.settings, painter.default_size
    if painter.is_miniature:
        settings = replace(settings, steps=400, rate="2e-3", batch=16, save_every=100, watch_every=25, preview_every=50)
    picture_settings = PictureSettings(
        width=size, height=size, step=painter.size_step, template=chosen.template, fit="crop"
    )
    job = TrainingJob(
        name=name,
        pictures=pictures,
        creation=Creation(structure, self_attention=chosen.self_attention),
        settings=settings,
        picture_settings=picture_settings,
    )
    return replace(job, **changes)  # type: ignore[arg-type]


def throw_away(job: TrainingJob) -> None:
    """Delete what an earlier run left in the job's folder; what is not a run's own stays."""
    own = [job.folder / name for name in (STATE, "log.csv", "curve.png", "previews.png", "settings.json")]
    for suffix in SUFFIXES:
        own += saved_networks(job.folder, job.name, suffix) if job.folder.is_dir() else []
    for path in [*own, *(job.folder / "previews").glob("[0-9]*-[0-9]*.png")]:
        path.unlink(missing_ok=True)


def train_job(
    job: TrainingJob, painter: Painter, watcher: Watcher | None = None, *, keep_model: bool = True
) -> Outcome:
    """Train as the job says, from the beginning or from where its folder is.

    Args:
        painter: nothing else may use it meanwhile; it is as before afterwards.
        keep_model: ``False`` may round the painter's weights, which needs less memory: for processes that end with it.

    Raises:
        TrainingDataError, TrainingSettingsError, TrainingStateError: found before anything is changed.
        DivergenceError: the run went wrong; the last good state is kept.
        CheckpointError, FileError, PatchError: of the model, or of the file to go on from.
    """
    return _Session(job, painter, watcher or Watcher(), keep_model).train()


class _Session:
    """One job under way."""

    def __init__(self, job: TrainingJob, painter: Painter, watcher: Watcher, keep_model: bool) -> None:
        self.keep_model = keep_model
        self.painter, self.watcher, self.model = painter, watcher, FrozenModel(painter.pipeline)
        self.job = replace(job, settings=replace(job.settings, precision=self.model.precision(job.settings.precision)))
        self.is_first, self.messages = World().is_first, list[str]()
        step = job.picture_settings.step
        if step % painter.size_step and job.picture_settings.fit == "buckets":
            raise TrainingSettingsError(
                f"steps of {step} pixels are not possible: use multiples of {painter.size_step}"
            )
        size = (job.picture_settings.width, job.picture_settings.height)
        self.model.check_size(*size, painter.size_step)

    def train(self) -> Outcome:
        job = self.job
        paths, held_out = split_held_out(find_pictures(job.pictures), job.picture_settings.held_out, job.settings.seed)
        network = self._network()
        if self.is_first:
            self._prepare_folder()
        with ExitStack() as stack:
            stack.enter_context(self.model.ready(job.settings.precision, keep=self.keep_model))
            contexts = Contexts(self.model.encode_texts)
            examples, kept = self._examples(paths, contexts), self._held_out(held_out, contexts)
            if job.checkpointing == "on":
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
                held_out=kept,
                device=self.model.device,
                save_memory=self._save_memory if job.checkpointing == "auto" else None,
                every_width=set(network.widths) <= set(self.model.widths()),
            )
            self._run(run)
        return self._outcome(run)

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
            network.provenance, name=job.name, checkpoint_name=self.painter.model_name, checkpoint_hash=None
        )
        return network

    def _prepare_folder(self) -> None:
        job = self.job
        if job.restart:
            throw_away(job)
        make_folder(job.folder)
        text = json.dumps(asdict(job), indent=1, default=str) + "\n"
        replace_file(job.folder / "settings.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def _examples(self, paths: Sequence[Path], contexts: Contexts) -> Examples:
        job = self.job
        self.watcher.on_stage("encoding pictures", 0, len(paths))
        examples = load_examples(
            paths,
            job.picture_settings,
            self.model.encode_pixels,
            name=job.name,
            report=lambda done, total: self.watcher.on_stage("encoding pictures", done, total),
        )
        self.watcher.on_stage("encoding captions", 0, 1)
        made = Examples(
            examples,
            contexts,
            batch=job.settings.batch,
            caption_dropout=job.settings.caption_dropout,
            seed=job.settings.seed,
        )
        self.watcher.on_stage("encoding captions", 1, 1)
        return made

    def _held_out(self, paths: Sequence[Path], contexts: Contexts) -> HeldOut | None:
        if not paths or not self.job.settings.watch_every or not self.is_first:
            return None
        settings = replace(self.job.picture_settings, crops=1, flip=False, spread=False)
        examples = load_examples(paths, settings, self.model.encode_pixels, name=self.job.name)
        return HeldOut(examples, contexts, self.job.settings.seed)

    def _save_memory(self) -> bool:
        saved = self.model.save_memory()
        if saved:
            self.messages.append("memory ran out, so activations are computed twice: a smaller batch would be faster")
        return saved

    def _run(self, run: Run) -> None:
        job = self.job
        if run.is_finished:
            self.messages.append(f"{job.folder} holds a run that is finished: ask for more steps, or restart it")
        log = Log(job.folder, run.step) if self.is_first else None
        previews = job.settings.preview_every if job.previews and self.is_first else 0
        if previews and run.step == 0:
            self._preview(run)

        def on_step(done: TrainingStep) -> None:
            assert log is not None
            log.add(done)
            self.watcher.on_step(done)
            if previews and (done.step % previews == 0 or run.is_finished):
                self._preview(run)
            if done.step % CURVE_EVERY == 0 or run.is_finished:
                save_curve(log.rows, job.folder, job.name)

        try:
            train(run, on_step=on_step, should_stop=self.watcher.should_stop)
        finally:
            if log is not None and log.rows:
                save_curve(log.rows, job.folder, job.name)

    def _preview(self, run: Run) -> None:
        """Paint all prompts with the network as it is now; a prompt that can't be painted costs a message."""
        job, made = self.job, []
        with run.at_rest(), self.model.at_hand(), run.autocast():
            for number, prompt in enumerate(job.previews):
                work = Generation(prompt, steps=job.preview_steps, seed=job.preview_seed)
                try:
                    picture = self.painter.paint(work).pictures[0].image
                except HypernetworkError as error:
                    self.messages.append(f'the preview "{prompt}": {error}')
                    continue
                made.append(picture)
                save_preview(job.folder, run.step, number, picture)
        if made:
            save_sheet(job.folder, run.step)
            self.watcher.on_preview(run.step, made)

    def _outcome(self, run: Run) -> Outcome:
        file = self.job.folder / f"{self.job.name}-{run.network.provenance.step}{self.job.suffix}"
        return Outcome(file if file.exists() else None, run.step, run.is_finished, tuple(dict.fromkeys(self.messages)))
