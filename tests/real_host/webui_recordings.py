"""What the probe recorded at ``to_k`` and ``to_v``, measured with ``tests/reference.py``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from reference import Reference, relative_error, stacked
from webui_networks import content

Call = dict[str, list[torch.Tensor]]
"""Of one UNet call: path of a projection -> [context before all hooks, context that arrives]."""


class Recording:
    """The UNet calls of one generation.

    Args:
        calls: in their order.
        folder: where the networks are that tags name.
    """

    def __init__(self, calls: Sequence[Call], folder: Path) -> None:
        self.calls, self.folder = [call for call in calls if call], folder

    @property
    def projections(self) -> int:
        """How many were recorded in the first call: 64 in an SD1 UNet."""
        return len(self.calls[0])

    def error(self, networks: Sequence[tuple[str, float]], call: int = 0) -> tuple[float, str]:
        """The largest relative error against AUTOMATIC1111's formula over all projections, and
        where it is.

        Args:
            networks: file name below the folder, multiplier; in the order of the tags.
        """
        contents = [(content(self.folder / name), multiplier) for name, multiplier in networks]
        errors = {}
        for path, (before, after) in self.calls[call].items():
            expected = stacked(contents, before.double(), int(path.endswith("to_v")), torch.float64)
            errors[path] = relative_error(after, expected)
        worst = max(errors, key=lambda path: errors[path])
        return errors[worst], worst

    def multipliers(self, name: str) -> list[float]:
        """How strong a single network acted in each call, measured on the first recorded
        projection."""
        network = Reference(content(self.folder / name), torch.float64)
        found = []
        for call in self.calls:
            path, (before, after) = next(iter(call.items()))
            before, after = before.double(), after.double()
            whole = network(before, int(path.endswith("to_v")), 1.0) - before
            found.append(round(float((whole * (after - before)).sum() / (whole * whole).sum()), 4))
        return found

    def is_untouched(self) -> bool:
        """Whether all contexts arrived as they came."""
        return all(
            torch.equal(before, after) for call in self.calls for before, after in call.values()
        )
