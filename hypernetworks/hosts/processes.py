"""Processes that ``torchrun`` started: who this one is, and which device it has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True)
class Place:
    """This process among those of a run."""

    rank: int
    local_rank: int
    size: int

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def device(self, asked: str | None) -> str:
        """The device asked for, else a GPU of its own, else the CPU."""
        if asked is not None and asked != "cuda":
            return asked
        if not torch.cuda.is_available():
            return asked or "cpu"
        return f"cuda:{self.local_rank}" if self.size > 1 else "cuda"


@contextmanager
def together(device: str | None = None) -> Iterator[Place]:
    """Join the processes that ``torchrun`` started, if it did, and leave them afterwards.

    Args:
        device: what was asked for, ``None`` for a GPU where there is one.
    """
    size, rank, local_rank = (
        int(os.environ.get(n, d)) for n, d in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0))
    )
    place = Place(rank, local_rank, size)
    if size == 1:
        yield place
        return
    on_gpu = torch.cuda.is_available() and place.device(device).startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(local_rank)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield place
    finally:
        distributed.destroy_process_group()
