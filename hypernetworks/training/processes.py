"""Several processes that train together: ``torchrun`` starts them, and torch joins them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn

from ..devices import choose_device, name_of
from ..engine.network import Hypernetwork
from ..errors import TrainingSettingsError
from .examples import Batch

Predict = Callable[[torch.Tensor, torch.Tensor, Batch], torch.Tensor]
"""``(noisy latents, time steps, batch)`` -> what the UNet predicts, of the latents' shape."""


class World:
    """The processes of this run: just this one, or those of torch's default process group.

    Attributes:
        rank: number of this process among all of them.
        local_rank: its number among those of this machine, which is the number of its GPU.
        size: how many there are.
    """

    def __init__(self) -> None:
        joined = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank() if joined else 0
        self.size = distributed.get_world_size() if joined else 1
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0")) if joined else 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def device(self, asked: str | None) -> str:
        """The device that was asked for, else the best there is, a card of this process's own where
        it has several.

        Raises:
            DeviceError: this machine can't use it.
        """
        return _device(asked, self.local_rank, self.size)

    def share(self, batch: int) -> range:
        """Which samples of a batch are this process's.

        Raises:
            TrainingSettingsError: they can't be shared out evenly.
        """
        if batch % self.size:
            raise TrainingSettingsError(
                f"a batch of {batch} can't be split among {self.size} processes: use a multiple",
                setting="batch",
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
        # The maximum of both signs is one collective, and equal only where all numbers are.
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


@contextmanager
def together(device: str | None = None, patience: timedelta | None = None) -> Iterator[World]:
    """Join the processes that ``torchrun`` started, if it did, and leave them afterwards.

    Args:
        device: what was asked for, ``None`` for the best there is.
        patience: how long one waits for the others; ``None`` for torch's usual minutes.

    Raises:
        DeviceError: there are fewer cards than processes.
        TrainingSettingsError: several processes can't work together on such a device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    # Without torchrun there is nobody to wait for.
    if size == 1:
        yield World()
        return

    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = _device(device, local_rank, size)
    backend = backend_for(chosen)
    if chosen.startswith("cuda"):
        torch.cuda.set_device(torch.device(chosen))

    # Windows has no nccl, and its torch is built without the library that the store asks for.
    if os.name == "nt":
        os.environ.setdefault("USE_LIBUV", "0")
    limits: dict[str, Any] = {} if patience is None else {"timeout": patience}
    distributed.init_process_group(backend, **limits)
    try:
        yield World()
    finally:
        distributed.destroy_process_group()


def _device(asked: str | None, local_rank: int, size: int) -> str:
    """Each process gets its own GPU, unless one was requested."""
    chosen = choose_device(asked)
    many = size > 1 and chosen in ("cuda", "xpu")
    return choose_device(f"{chosen}:{local_rank}") if many else chosen


def backend_for(device: str) -> str:
    """What joins processes on a kind of device: the backend's name for torch.

    Raises:
        TrainingSettingsError: nothing does.
    """
    kind = torch.device(device).type
    if kind == "cuda" and distributed.is_nccl_available():
        return "nccl"
    if kind in ("cuda", "cpu"):  # gloo takes tensors of CUDA, too, by way of the CPU
        return "gloo"
    if kind == "xpu" and getattr(distributed, "is_xccl_available", lambda: False)():
        return "xccl"

    raise TrainingSettingsError(
        f"several processes can't train together on {name_of(torch.device(device))} with this "
        "torch: start one process, or use the CPU (`device` cpu)",
        setting="device",
    )


class Learner(nn.Module):
    """The network's parameters and the frozen UNet's prediction as one module, as data parallel
    needs it.
    """

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
        every_width: whether every parameter gets a gradient, as the model has every width of the
            network.
    """
    if world.size == 1:
        return learner
    return nn.parallel.DistributedDataParallel(learner, find_unused_parameters=not every_width)
