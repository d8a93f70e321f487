"""Drives a run from where it is to its end, or to where it is stopped."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import FileWriteError
from .health import TrainingStep
from .loop import Run


def train(
    run: Run,
    *,
    on_step: Callable[[TrainingStep], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Do all steps of a run, or those until it is stopped; then save and leave the network ready
    for use.

    Args:
        on_step: called after every step, in the first process; what it raises stops the run after
            that step.
        should_stop: asked after every step; loses nothing, as the last finished step is saved.

    Raises:
        DivergenceError: see :meth:`Run.advance`.
    """
    try:
        while not run.is_finished:
            done = run.advance()
            if on_step is not None and run.world.is_first:
                on_step(done)
            if run.world.any(should_stop is not None and should_stop(), run.device):
                break
    except BaseException:
        try:
            run.finish()
        except FileWriteError as refused:  # the first error is the one to report
            run.warn(f"step {run.step} could not be saved: {refused}")
        raise

    run.finish()
