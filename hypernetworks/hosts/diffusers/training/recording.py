"""What a run leaves for people while it trains: its log, its curve, event files and previews."""

from __future__ import annotations

from collections.abc import Callable

from ....training import Run, TrainingStep
from ....training.records import Log, save_curve
from ....training.tensorboard import Events
from .job import TrainingJob, Watcher
from .previewing import Previews, not_ending

CURVE_EVERY = 25
"""Steps between drawings of the loss curve."""


class Recorder:
    """Records the steps of a run, in the process that writes files.

    Args:
        tell: told what could not be written; training goes on.
    """

    def __init__(
        self,
        job: TrainingJob,
        run: Run,
        previews: Previews,
        watcher: Watcher,
        tell: Callable[[str], object],
    ) -> None:
        self.job, self.run, self.previews = job, run, previews
        self.watcher, self.tell = watcher, tell
        # Rows of steps that were lost, as the process was killed, come again.
        self.log = Log(job.folder, run.step)
        self.events = Events(job.folder) if job.tensorboard else None
        self._every = job.settings.preview_every if job.previews else 0

    def begin(self) -> None:
        """Show what the model makes of the prompts before it has learned anything."""
        if self._every and self.run.step == 0:
            self.previews.generate(self.run)

    def step(self, done: TrainingStep) -> None:
        """Record a finished step."""
        with not_ending(self.tell):
            self.log.add(done)
        if self.events is not None:
            with not_ending(self.tell):
                self.events.add(done)
        self.watcher.on_step(done)

        # Afterwards, as previews take long and the step should be seen at once.
        if self._every and (done.step % self._every == 0 or self.run.is_finished):
            self.previews.generate(self.run)
        if done.step % CURVE_EVERY == 0 or self.run.is_finished:
            self._draw()

    def end(self) -> None:
        """Draw the curve up to the last step, however the run ended."""
        if self.log.rows:
            self._draw()

    def _draw(self) -> None:
        with not_ending(self.tell):
            save_curve(self.log.rows, self.job.folder, self.job.name)
