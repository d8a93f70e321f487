"""What ``train`` shows while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..console import warn
from ..progress import Progress
from ..training.naming import spelled


class Report:
    """Progress lines for the stages and the steps.

    Args:
        name: of the run.
        names: the options of settings, for messages.
        quiet: print nothing, in all processes but the first.
    """

    def __init__(self, name: str, names: Mapping[str, str], *, quiet: bool) -> None:
        self._names = names
        self._name, self._quiet, self._validation = name, quiet, ""
        self._current: tuple[str, Progress] | None = None
        self._steps: tuple[int, int] | None = None

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *error: object) -> None:
        self._show(None, 0, 0)

    def stage(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage of the preparation is."""
        self._show(stage, done, total)

    def step(self, done: Any) -> None:
        """Show a finished step."""
        if done.validation is not None:
            self._validation = f"  validation {done.validation:.4f}"
        note = f"loss {done.smoothed:.4f}{self._validation}  rate {done.rate:.2g}"
        self._steps = done.step, done.steps
        self._show(self._name, *self._steps, note)

    def generating(self, done: int, total: int) -> None:
        """Show how many preview images are finished."""
        # Before the first step they have a line of their own, later they are a note on the steps'.
        if self._steps is None:
            self._show("generating previews", done, total)
        else:
            self._show(self._name, *self._steps, f"generating previews {done}/{total}")

    def overview(self, lines: Sequence[str]) -> None:
        """Print what the training is based on, a sentence on each line."""
        for line in lines:
            self.message(line)

    def message(self, text: str) -> None:
        """Print a message on a line of its own."""
        self._show(None, 0, 0)
        if not self._quiet:
            warn(f"hypernetworks: {spelled(text, self._names)}")

    def _show(self, label: str | None, done: int, total: int, note: str = "") -> None:
        if self._quiet:
            return

        if self._current is None or self._current[0] != label:
            if self._current is not None:
                self._current[1].__exit__(None, None, None)
            # A run that continues is at a later step already: the rate counts from there.
            self._current = (
                None if label is None else (label, Progress(total, label, initial=max(0, done - 1)))
            )
        if self._current is not None:
            self._current[1].update(done, note)
