"""The previews of a run: images of its prompts with the network as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ....errors import FileWriteError, HypernetworkError
from ....training import Run
from ....training.records import save_preview, save_sheet
from ..generation import Generation
from ..pipeline import Painter
from .frozen_model import FrozenModel
from .job import TrainingJob, Watcher

if TYPE_CHECKING:
    from PIL.Image import Image

    from ....training.prompts import Preview


class Previews:
    """Generates all prompts of a job, and shows them beside those of earlier steps.

    Args:
        tell: told what a prompt could not do; training goes on.
    """

    def __init__(
        self,
        job: TrainingJob,
        painter: Painter,
        model: FrozenModel,
        watcher: Watcher,
        tell: Callable[[str], object],
    ) -> None:
        self.job, self.painter, self.model = job, painter, model
        self.watcher, self.tell, self.prompts = watcher, tell, job.prompts()
        self._steps = [p.steps or job.preview_steps for p in self.prompts]

    def generate(self, run: Run) -> None:
        """Generate all prompts with the current network; a prompt that fails adds a message."""
        made: list[Image] = []
        # Averaged weights, no dropout, and the RNG as before: a preview changes nothing.
        with run.at_rest(), self.model.at_hand():
            for number, preview in enumerate(self.prompts):
                image = self._image(number, preview)
                # A stopped preview may not be finished, and shall not stand beside others.
                if self.watcher.should_stop():
                    return
                if image is not None:
                    made.append(image)
                    with not_ending(self.tell):
                        save_preview(self.job.folder, run.step, number, image)

        if made:
            with not_ending(self.tell):
                save_sheet(self.job.folder, run.step)
            self.watcher.on_preview(run.step, made)

    def _image(self, number: int, preview: Preview) -> Image | None:
        before, total = sum(self._steps[:number]), sum(self._steps)

        def on_step(done: int, of: int) -> bool:
            self.watcher.on_preview_progress(before + done * self._steps[number] // of, total)
            return not self.watcher.should_stop()

        try:
            result = self.painter.generate(
                self._work(number, preview), on_step, keep_precision=True
            )
        except HypernetworkError as error:
            self.tell(f'the preview "{preview.prompt}": {error}')
            return None
        for message in result.messages:
            self.tell(f'the preview "{preview.prompt}": {message}')
        return result.pictures[0].image

    def _work(self, number: int, preview: Preview) -> Generation:
        job, size = self.job, self.job.picture_settings
        return Generation(
            preview.prompt,
            preview.negative,
            steps=self._steps[number],
            cfg=preview.cfg,
            seed=job.preview_seed if preview.seed is None else preview.seed,
            width=preview.width or size.width,
            height=preview.height or size.height,
        )


@contextmanager
def not_ending(tell: Callable[[str], object]) -> Iterator[None]:
    """What is only for looking at ends no training, such as a table that is open in another
    program.

    Args:
        tell: called with a message where it couldn't be written.
    """
    try:
        yield
    except (OSError, FileWriteError) as error:
        tell(f"{error}; training continues")
