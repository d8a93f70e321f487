"""What ``train`` shows while it runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..console import say
from ..progress import Progress
from ..training.naming import spelled


class Report:
    """Progress lines for the stages and the steps.

    Args:
        name: of the network.
        names: the options of settings, for messages.
        quiet: whether nothing is shown, as in all processes but the first.
    """

    def __init__(self, name: str, names: Mapping[str, str], *, quiet: bool) -> None:
        self._name, self._quiet, self._validation = name, quiet, ""
        self._names = names
        self._current: tuple[str, Progress] | None = None
        self._steps: tuple[int, int] | None = None

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *error: object) -> None:
        self._show(None, 0, 0)

    def stage(self, stage: str, done: int, total: int) -> None:
        """Part of the preparation."""
        self._show(stage, done, total)

    def step(self, done: Any) -> None:
        """A finished step."""
        if done.validation is not None:
            self._validation = f"  validation {done.validation:.4f}"
        note = f"loss {done.smoothed:.4f}{self._validation}  rate {done.rate:.2g}"
        self._steps = done.step, done.steps
        self._show(self._name, *self._steps, note)

    def generating(self, done: int, total: int) -> None:
        """Part of the previews: on a line of its own before the first step, later beside the
        steps.
        """
        if self._steps is None:
            self._show("generating previews", done, total)
        else:
            self._show(self._name, *self._steps, f"generating previews {done}/{total}")

    def overview(self, lines: Sequence[str]) -> None:
        """What will be learned, a sentence on each line."""
        for line in lines:
            self.message(line)

    def message(self, text: str) -> None:
        """What the user should know, on a line of its own."""
        self._show(None, 0, 0)
        if not self._quiet:
            say(f"hypernetworks: {spelled(text, self._names)}", sys.stderr)

    def _show(self, label: str | None, done: int, total: int, note: str = "") -> None:
        if self._quiet:
            return
        if self._current is None or self._current[0] != label:
            if self._current is not None:
                self._current[1].__exit__(None, None, None)
            self._current = (
                None if label is None else (label, Progress(total, label, initial=max(0, done - 1)))
            )
        if self._current is not None:
            self._current[1].update(done, note)
