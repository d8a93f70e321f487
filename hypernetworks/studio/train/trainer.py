"""The one training of a studio: begun by a window, watched by any, and it goes on when the window
is closed.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...console import pasted_path
from ...devices import is_out_of_memory
from ...errors import HypernetworkError, TrainingDataError
from ...hosts.diffusers.training import Outcome, Watcher, train_job
from ...training import TrainingStep
from ...training.folders import TrainingFolders
from ...ui.training.publish import check_free, publish
from ...ui.training.runs import Runs, remember, remembered
from ...ui.training.state import State, earlier, small
from ...ui.training.values import FormValues
from ..job_queue import InterruptedJobError, JobQueue, Update
from ..unfinished import EVERYONE
from . import example
from .form_values import job_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL.Image import Image

    from ...hosts.diffusers import Painter
    from ...hosts.diffusers.training import TrainingJob

WINDOW = EVERYONE
"""Whose jobs these are to the job queue: no window's, so that none stops them by accident."""


class Trainer:
    """Runs one training at a time as a job of the queue.

    Args:
        folder: the library's folder that takes the finished network; ``None`` where it has none of
            the user's own.

    Attributes:
        takes_paths: folders of images may be named by their path; not where others use the page.
    """

    def __init__(
        self, job_queue: JobQueue, training_folders: TrainingFolders, folder: Path | None
    ) -> None:
        self.job_queue, self.training_folders, self.folder = job_queue, training_folders, folder
        self.takes_paths = True
        self.state = State()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, values: FormValues) -> None:
        """Begin, or go on with the run of this name.

        Raises:
            HypernetworkError: the fields say something impossible, or a training runs already.
        """
        pictures = self._pictures(values)
        job = job_of(
            values,
            self.job_queue.painter,
            pictures or self.training_folders.pictures,
            self.training_folders.runs,
        )
        may_replace = check_free(job, self.job_queue.library, self.folder, values.replace)
        # Two windows may press Train in the same moment.
        with self._starting:
            if self.state.is_running:
                raise HypernetworkError(
                    f'"{self.state.name}" is being trained: wait, or interrupt it first'
                )
            self.state = State(job.name, "Starting …", total=job.settings.steps, is_running=True)

        arguments = (values, pictures, may_replace, self.state)
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()

    def _pictures(self, values: FormValues) -> Path | None:
        """The folder of images; ``None`` for the example, whose images are generated."""
        if values.path.strip():
            if not self.takes_paths:
                raise TrainingDataError("with --listen, the page accepts no paths")
            if values.key:
                raise TrainingDataError("choose a folder or type its path, not both: clear one")
            path = pasted_path(values.path)
            if not path.is_dir():
                raise TrainingDataError(f"{path}: there is no such folder")
            return path

        if not values.key:
            raise TrainingDataError(
                "there are no images yet: choose a folder of images, or drop some"
            )
        return None if values.key == example.KEY else self.training_folders.folder(values.key)

    def go_on(self, name: str, more: int) -> None:
        """Continue a run with the fields that it was begun with, by so many steps.

        Raises:
            HypernetworkError: it can't be continued.
        """
        runs = Runs(self.training_folders.runs)
        values, step = remembered(runs.path(name)), _step_of(runs, name)
        self.start(replace(values, name=name, steps=step + max(1, more), start_over=False))

    def interrupt(self) -> bool:
        """Stop after the present step, which is saved; whether one was running."""
        return self.job_queue.interrupt(WINDOW)

    def wait(self, seconds: float) -> None:
        """Until the training has ended and is saved, but no longer than that."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(
        self, values: FormValues, pictures: Path | None, may_replace: bool, state: State
    ) -> None:
        def work(
            painter: Painter, tell: Callable[[Update], None], cancelled: threading.Event
        ) -> Any:
            found = pictures or example.generate_example(
                painter, self.training_folders, tell, cancelled
            )
            job = job_of(values, painter, found, self.training_folders.runs)
            if not job.restart:
                state.rows, state.previews = earlier(job.folder, job.settings.steps)
            # Before the first step: a run that is killed can be continued with the same fields.
            remember(replace(values, start_over=False), job.folder)
            return job, train_job(job, painter, _watcher(state, cancelled))

        try:
            for said in self.job_queue.run(WINDOW, work, state.describe):
                if isinstance(said, Update):
                    state.note, state.done, state.total = (
                        said.note,
                        said.done,
                        said.total or state.total,
                    )
                else:
                    job, outcome = said
                    button = example.BUTTON if pictures is None else "Train"
                    self._finish(job, outcome, may_replace, state, button)
        except InterruptedJobError:
            state.messages.append("interrupted before its first step")
        except HypernetworkError as error:
            state.messages.append(str(error))
            state.is_wrong = True
        except Exception as error:  # memory, drivers: whatever torch may raise
            state.messages.append(
                "there was not enough memory: try a smaller batch or size"
                if is_out_of_memory(error)
                else (
                    f"the training failed ({type(error).__name__}: {error}): try a smaller batch "
                    "or size"
                )
            )
            state.is_wrong = True
        finally:
            state.is_running = False

    def _finish(
        self, job: TrainingJob, outcome: Outcome, may_replace: bool, state: State, button: str
    ) -> None:
        if not outcome.is_finished:
            state.messages.append(
                f'interrupted after {outcome.step} steps: press "{button}" to continue from there'
            )

        # The best network is the one that goes into the library, which may surprise.
        if outcome.best is not None and outcome.best_step != outcome.step:
            state.messages.append(
                f"the best of {outcome.step} steps was {outcome.best_step}, with validation loss "
                f"{outcome.best_loss:.4f}: that one is in the library"
            )
        if outcome.result is not None and self.folder is not None:
            state.kept_as = publish(
                job, outcome.result, self.job_queue.library, self.folder, may_replace
            )


def _step_of(runs: Runs, name: str) -> int:
    return next((run.step for run in runs.all() if run.name == name), 0)


def _watcher(state: State, cancelled: threading.Event) -> Watcher:
    def on_stage(text: str, done: int, total: int) -> None:
        state.note, state.done, state.total = f"{text.capitalize()}: {done} of {total}", done, total
        if cancelled.is_set():
            raise InterruptedJobError

    def on_step(step: TrainingStep) -> None:
        if (
            state.rows and state.rows[-1].step >= step.step
        ):  # steps that were lost, and are done again
            state.rows = [row for row in state.rows if row.step < step.step]
            state.previews = [shown for shown in state.previews if shown[0] < step.step]
        state.rows.append(step)
        state.note, state.done, state.total = (
            f"Step {step.step} of {step.steps}",
            step.step,
            step.steps,
        )

    def on_preview_progress(done: int, total: int) -> None:
        state.note = f"Generating previews: {done} of {total}"
        if not state.rows:  # later the bar shows the steps
            state.done, state.total = done, total

    def on_preview(step: int, pictures: Sequence[Image]) -> None:
        state.previews.append((step, [small(picture) for picture in pictures]))

    return Watcher(
        on_stage, on_step, on_preview_progress, on_preview, state.messages.append, cancelled.is_set
    )
