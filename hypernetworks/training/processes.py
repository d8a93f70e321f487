"""Several processes that train together: ``torchrun`` starts them, torch's distributed data parallel joins them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import distributed, nn

from ..engine.network import Hypernetwork
from ..errors import TrainingSettingsError
from .examples import Batch

Predict = Callable[[torch.Tensor, torch.Tensor, Batch], torch.Tensor]
"""``(noisy latents, time steps, batch)`` -> what the UNet predicts, of the latents' shape."""


class World:
    """The processes of this run: just this one, or those of torch's default process group."""

    def __init__(self) -> None:
        joined = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank() if joined else 0
        self.size = distributed.get_world_size() if joined else 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Which samples of a batch are this process's.

        Raises:
            TrainingSettingsError: they can't be shared out evenly.
        """
        if batch % self.size:
            raise TrainingSettingsError(
                f"a batch of {batch} can't be shared by {self.size} processes: use a multiple"
            )
        part = batch // self.size
        return range(self.rank * part, (self.rank + 1) * part)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over all processes."""
        if self.size > 1:
            distributed.all_reduce(values)
            values = values / self.size
        return values

    def agrees(self, number: int, device: torch.device | str) -> bool:
        """Whether all processes have the same number."""
        if self.size == 1:
            return True
        values = torch.tensor([number, -number], device=device)
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return bool(values[0] == -values[1])

    def any(self, flag: bool, device: torch.device | str) -> bool:
        """Whether any of the processes says yes."""
        if self.size == 1:
            return flag
        value = torch.tensor(float(flag), device=device)
        distributed.all_reduce(value)
        return bool(value.item())


class Learner(nn.Module):
    """The network's parameters and the frozen UNet's prediction as one module, as data parallel needs it."""

    def __init__(self, network: Hypernetwork, predict: Predict) -> None:
        super().__init__()
        self.mlps = nn.ModuleList(mlp for dim in network.widths for mlp in network.pairs[dim])
        self._predict = predict

    def forward(self, noisy: torch.Tensor, times: torch.Tensor, batch: Batch) -> torch.Tensor:
        """What the UNet predicts."""
        return self._predict(noisy, times, batch)


def joined(learner: Learner, world: World, every_width: bool) -> nn.Module:
    """The learner itself, or wrapped so that its gradients are averaged over the processes.

    Args:
        every_width: whether every parameter gets a gradient, as the model has every width of the network.
    """
    if world.size == 1:
        return learner
    return nn.parallel.DistributedDataParallel(learner, find_unused_parameters=not every_width)
