"""The gradients of one step: forward and backward for each of its batches, with less memory where
that runs out.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from ..devices import is_out_of_memory
from .forward import ForwardPass
from .optimisers import Stepper
from .processes import World


class Gradients:
    """Accumulates the gradients of steps by number.

    Args:
        learner: what predicts; its gradients are averaged over the processes.
        forward: the loss of a batch.
        stepper: has the scaler of the losses, and forgets gradients.
        world: the processes.
        save_memory: called when memory runs out; the step is tried again where it returns ``True``.
    """

    def __init__(
        self,
        learner: nn.Module,
        forward: ForwardPass,
        stepper: Stepper,
        world: World,
        save_memory: Callable[[], bool] | None = None,
    ) -> None:
        self.learner, self.forward, self.stepper, self.world = learner, forward, stepper, world
        self._share, self._save_memory = world.share(forward.settings.batch), save_memory

    def of(self, step: int) -> tuple[float, float]:
        """Compute the gradients of a step; returns its loss, and the loss of predicting nothing.

        Args:
            step: finished steps before it.
        """
        while True:
            try:
                return self.accumulate(step)
            except RuntimeError as error:
                if self._save_memory is None or not is_out_of_memory(error):
                    raise
                # The frames hold all that the step had computed so far.
                traceback.clear_frames(error.__traceback__)
                self.stepper.forget()
                if not self._save_memory():
                    raise

    def accumulate(self, step: int) -> tuple[float, float]:
        """As :meth:`of`, once."""
        settings, examples = self.forward.settings, self.forward.examples
        totals = torch.zeros(2, device=self.forward.device)
        first = step * settings.samples_per_step
        examples.prepare(first, first + settings.samples_per_step)

        for number in range(settings.accumulation):
            start = first + number * settings.batch
            parts = examples.parts([start + i for i in self._share])
            for part in parts:
                last = number == settings.accumulation - 1 and part is parts[-1]
                share = len(part) / len(self._share)
                with self._unsynchronised(last), self.forward.dropout(part[0]):
                    loss, power = self.forward.losses(part)
                    scaled = self.stepper.scaler.scale(loss * share / settings.accumulation)
                    scaled.backward()  # type: ignore[no-untyped-call]
                totals += torch.stack([loss.detach(), power.detach()]) * share

        loss_value, power_value = self.world.mean(totals / settings.accumulation).tolist()
        return loss_value, power_value

    def _unsynchronised(self, last: bool) -> AbstractContextManager[object]:
        """Gradients are averaged over the processes once per step."""
        if last or self.world.size == 1:
            return nullcontext()
        context: AbstractContextManager[object] = self.learner.no_sync()  # type: ignore[operator]
        return context
