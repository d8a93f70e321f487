"""An exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class Average:
    """An exponential moving average of parameters.

    Args:
        parameters: averaged in their own dtype and on their own device.
        decay: 0 keeps no average; then :meth:`inside` changes nothing.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float) -> None:
        self._parameters, self.decay = list(parameters), decay
        self.values = [p.detach().clone() for p in self._parameters] if decay else []

    def update(self, step: int) -> None:
        """Move towards the parameters; faster in the first steps, so that the start is soon
        forgotten.
        """
        if self.values:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_mul_(self.values, decay)
            torch._foreach_add_(
                self.values, [p.detach() for p in self._parameters], alpha=1 - decay
            )

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The parameters hold their average; afterwards, bit for bit, what they held before."""
        if not self.values:
            yield
            return
        # Swapping back by arithmetic would round; a copy comes back bit for bit.
        before = [p.detach().clone() for p in self._parameters]
        write_values(self._parameters, self.values)
        try:
            yield
        finally:
            write_values(self._parameters, before)


def write_values(parameters: Sequence[torch.nn.Parameter], values: Sequence[torch.Tensor]) -> None:
    """Write values into parameters, in place."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
