"""One training job as a record: its inputs, settings, folder, result and callbacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ....errors import TrainingSettingsError
from ....training import PRESETS, TrainingSettings, TrainingStep
from ....training.checkpoints import MARK, SETTINGS, STATE, best_file, saved_networks
from ....training.creation import Creation, check_name
from ....training.optimisers import needs_no_schedule, usual_rate
from ....training.overview import EPOCHS
from ....training.pictures import PictureSettings
from ....training.prompts import Preview, parse_preview
from ....training.settings import CHECKPOINTINGS, MEMORY
from ....training.sources import Source, sources_of
from ....training.tensorboard import FOLDER as EVENTS

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..pipeline import Painter

SUFFIXES = (".safetensors", ".pt")
CONFIG = "run.toml"
"""In a run's folder: its options, which ``train --config`` reads."""
CAPTIONS = "captions.json"
"""In a run's folder: what a captioner said of which image, by its content, so that the run goes on
with the same words.
"""


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
        previews: prompts, with kohya's flags if any, whose images are generated every
            ``settings.preview_every`` steps and before the first, by default at the size of the
            images that are learned from.
        preview_seed, preview_steps: of all previews, so that they can be compared.
        checkpointing: whether activations are computed twice to save memory: ``"auto"`` does so
            where there is too little for keeping them, and when it runs out.
        memory: how the UNet's weights are stored: ``"whole"``, ``"fp8"``, ``"streamed"`` from the
            CPU, or ``"auto"``, the first of these that fits.
        restart: whether a run that is in the folder is thrown away rather than continued.
        other_pictures: further folders to learn from.
        repeats: how often the images of each folder come in an epoch; none for once.
        skip_bad: whether images that can't be read are left out, rather than refused.
        steps_by_images: whether the steps go by the number of images; the settings' are then the
            usual number.
        epochs: how often each image is learned from in that case.
        weights: of the losses of each folder's images; none for 1.
        masks: folder of masks for all images; see :class:`~.sources.Source`.
        sources: folders with more of their own, in place of the folders above.
        captioner: folder of an image-to-text model for images without a caption.
        cache: folder where latents and text encoder states are kept between runs.
        tensorboard: whether event files for TensorBoard are written into the run's folder.
        dry_run: whether the job ends with its report, before anything is encoded or written.
        preset: that the job was made from, whose steps are the usual number.
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
    memory: str = "auto"
    restart: bool = False
    other_pictures: tuple[Path, ...] = ()
    repeats: tuple[int, ...] = ()
    skip_bad: bool = False
    steps_by_images: bool = False
    epochs: int = EPOCHS
    weights: tuple[float, ...] = ()
    masks: Path | None = None
    sources: tuple[Source, ...] = ()
    captioner: Path | None = None
    cache: Path | None = None
    tensorboard: bool = False
    dry_run: bool = False
    preset: str = "style"

    def __post_init__(self) -> None:
        check_name(self.name)
        choices = {"suffix": SUFFIXES, "checkpointing": CHECKPOINTINGS, "memory": MEMORY}
        choices |= {"preset": tuple(PRESETS)}
        for what, known in choices.items():
            if getattr(self, what) not in known:
                raise TrainingSettingsError(
                    f'{what} is "{getattr(self, what)}", use one of {", ".join(known)}',
                    setting=what,
                )

        self.prompts()

    def prompts(self) -> tuple[Preview, ...]:
        """The previews.

        Raises:
            TrainingSettingsError: a flag that can't be understood.
        """
        return tuple(map(parse_preview, self.previews))

    def all_sources(self) -> tuple[Source, ...]:
        """All folders to learn from.

        Raises:
            TrainingSettingsError: the repeats or weights don't fit them.
        """
        folders = (self.pictures, *self.other_pictures)
        return self.sources or sources_of(folders, self.repeats, self.weights, self.masks)

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
        best: the file of the lowest validation loss, where that was measured: the result of the
            run.
        best_step, best_loss: its step in this run, and its validation loss.
    """

    file: Path | None
    step: int
    is_finished: bool
    messages: tuple[str, ...] = ()
    best: Path | None = None
    best_step: int = 0
    best_loss: float = math.inf

    @property
    def result(self) -> Path | None:
        """The file to use: the best one, else the last one."""
        return self.best or self.file


@dataclass(frozen=True)
class Watcher:
    """Callbacks of a job, all called in the training thread; each is optional.

    Attributes:
        on_stage: what is being prepared, done and total: ``("encoding images", 12, 100)``.
        on_step: after every finished step.
        on_painting: how far the previews are, in sampling steps of all prompts: done and total.
        on_preview: step, and one image per prompt.
        on_message: what the user should know, at once; :attr:`Outcome.messages` has all of them.
        should_stop: asked after every step; ``True`` saves and ends the run. Previews and
            preparation end at once.
        on_overview: what will be learned, in sentences, before anything is.
    """

    on_stage: Callable[[str, int, int], object] = lambda *_: None
    on_step: Callable[[TrainingStep], object] = lambda *_: None
    on_preview_progress: Callable[[int, int], object] = lambda *_: None
    on_preview: Callable[[int, Sequence[Image]], object] = lambda *_: None
    on_message: Callable[[str], object] = lambda *_: None
    should_stop: Callable[[], bool] = lambda: False
    on_overview: Callable[[Sequence[str]], object] = lambda _: None


MINIATURE_INITIALISATION = "KaimingUniform"
"""Of networks for the miniature; see ``benchmarks/sweep.py``.

On full-size models, whose wider layers would learn several times faster with it, nobody has
compared the two.
"""


MINIATURE_EPOCHS = 60
"""With a schedule-free optimiser, after which the validation loss falls no more."""
AVERAGED_RATE, FALLING_RATE = "3e-3", "2e-3"
"""Of schedule-free optimisers and of others on the miniature; see ``benchmarks/sweep.py``."""


def preset_job(
    preset: str, name: str, pictures: Path, painter: Painter, **changes: object
) -> TrainingJob:
    """The job that a preset makes for a loaded model, with ``changes`` to its fields.

    The miniature learns fast: there the presets have a higher rate, larger batches and fewer steps.

    Raises:
        TrainingSettingsError: no such preset.
    """
    if preset not in PRESETS:
        raise TrainingSettingsError(
            f'the preset "{preset}" is unknown, use one of {", ".join(PRESETS)}',
            setting="preset",
        )

    chosen = PRESETS[preset]
    # The presets are for full-size models.
    settings, size = chosen.settings, painter.default_size

    initialisation, epochs = "Normal", EPOCHS
    if painter.is_miniature:
        settings = on_miniature(settings)
        initialisation, epochs = MINIATURE_INITIALISATION, MINIATURE_EPOCHS

    picture_settings = PictureSettings(
        width=size, height=size, step=painter.size_step, template=chosen.template, fit="crop"
    )
    job = TrainingJob(
        name=name,
        pictures=pictures,
        creation=Creation(chosen.structure, initialisation, self_attention=chosen.self_attention),
        settings=settings,
        picture_settings=picture_settings,
        epochs=epochs,
        preset=preset,
    )
    return replace(job, **changes)  # type: ignore[arg-type]


def on_miniature(settings: TrainingSettings) -> TrainingSettings:
    """A preset's settings for the miniature, which is small and learns fast.

    Found by ``benchmarks/sweep.py``: small batches learn more from as many images, and an average
    of the weights more than a falling rate.
    """
    return replace(
        settings,
        steps=1200,
        rate=AVERAGED_RATE,
        batch=2,
        optimiser="ScheduleFreeAdamW",
        gains="on",
        save_every=400,
        watch_every=50,
        preview_every=200,
    )


def rate_with(optimiser: str, painter: Painter) -> str | None:
    """The usual learning rate with an optimiser that was asked for; ``None`` for the preset's."""
    if rate := usual_rate(optimiser):
        return rate

    # On full-size models, nobody has compared the two.
    if not painter.is_miniature:
        return None
    return AVERAGED_RATE if needs_no_schedule(optimiser) else FALLING_RATE


def throw_away(job: TrainingJob) -> None:
    """Delete what an earlier run left in the job's folder; what is not a run's own stays, and what
    it begins with.
    """
    own = [
        job.folder / name
        for name in (
            STATE,
            "log.csv",
            "curve.png",
            "previews.png",
            SETTINGS,
            MARK,
            CONFIG,
            CAPTIONS,
        )
    ]
    for suffix in SUFFIXES:
        own.append(best_file(job.folder, job.name, suffix))
        own += saved_networks(job.folder, job.name, suffix) if job.folder.is_dir() else []
    own += (job.folder / EVENTS).glob("events.out.tfevents.*.hypernetworks")
    # A file that the new run begins with may lie here, under this run's name.
    for path in [*own, *(job.folder / "previews").glob("[0-9]*-[0-9]*.png")]:
        if job.network is None or not path.exists() or not path.samefile(job.network):
            path.unlink(missing_ok=True)
