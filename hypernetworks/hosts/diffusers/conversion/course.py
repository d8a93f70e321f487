"""Keeps a training on its course: where it gets worse, it goes back, and on with smaller steps.

No learning rate is right for every model: what trains a small one well destroys in ten steps what
least squares found for one of Stable Diffusion's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

CHECKED = 20
"""Steps between two checks."""
PATIENCE = 3
"""Checks from a start on, one of which must have been better than the start."""
WORSE = 1.5
"""Times the first error. Not the smallest one: with a high learning rate, errors go up and down."""
SMALLER = 3.0
"""What the learning rate is divided by each time."""
MOST_RETURNS = 8
"""The learning rate is then 1/6561 of the first one: it is not the reason."""


class Course:
    """The best state of a training so far, and its learning rate.

    Args:
        parameters: what is trained. They are kept on the CPU, once more.
        error: measures them, always on the same questions.
        rate: the learning rate to begin with.

    Attributes:
        rate: the learning rate now, where no schedule lowers it.
        steps: done since the start, or since it last went back.
        returns: how often it went back.
        best: the smallest error so far.
    """

    def __init__(
        self, parameters: Sequence[torch.Tensor], error: Callable[[], float], rate: float
    ) -> None:
        self._parameters, self._error, self.rate = parameters, error, rate
        self.steps = self.returns = 0
        self._gained_lately = False
        self.best = self._first = self._error()
        self._kept = self._copied()

    @property
    def has_gained(self) -> bool:
        """Whether the best state is better than the first one."""
        return self.best < self._first

    @property
    def is_lost(self) -> bool:
        """Whether no learning rate helps."""
        return self.returns > MOST_RETURNS

    def goes_on(self) -> bool:
        """Note that a step is done; false if the training has gone back, and begins anew."""
        self.steps += 1
        if self.steps % CHECKED:
            return True

        error = self._error()
        self._note(error)
        is_stuck = self.steps >= PATIENCE * CHECKED and not self._gained_lately
        # not "greater": an error may be no number at all
        if error <= WORSE * self._first and not is_stuck:
            return True
        self.go_back()
        return False

    def go_back(self) -> None:
        """To the best state, with a lower learning rate."""
        self._restore()
        self.rate /= SMALLER
        self.returns += 1
        self.steps, self._gained_lately = 0, False

    def finish(self) -> None:
        """Take the best state, if the last one isn't it."""
        if self.steps % CHECKED:  # otherwise it has just been checked
            self._note(self._error())
        self._restore()

    def _note(self, error: float) -> None:
        if error < self.best:  # not so for what is no number
            self.best, self._kept, self._gained_lately = error, self._copied(), True

    def _copied(self) -> list[torch.Tensor]:
        return [parameter.detach().to("cpu", copy=True) for parameter in self._parameters]

    @torch.no_grad()
    def _restore(self) -> None:
        for parameter, kept in zip(self._parameters, self._kept, strict=True):
            parameter.copy_(kept)
