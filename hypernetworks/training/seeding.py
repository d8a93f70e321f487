"""Randomness by number: what sample ``n`` of a run draws depends on the seed and on ``n`` alone.

So a batch may be split over accumulation steps, over processes or over an interruption, and
previews may be made in between, without any draw of the run changing; and no generator's state has
to be kept.
"""

from __future__ import annotations

import hashlib
from random import Random

import torch


def mixed(*parts: object) -> int:
    """A number in [0, 2**32) that stands for all ``parts``, the same on every machine."""
    return int.from_bytes(hashlib.blake2s(repr(parts).encode(), digest_size=4).digest(), "little")


def sample_random(seed: int, sample: int) -> Random:
    """Python's generator for sample ``sample`` (0 is the first of the run)."""
    return Random(mixed("sample", seed, sample))


def sample_noise(seed: int, sample: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal fp32 noise of ``shape`` on the CPU for one sample."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(mixed("noise", seed, sample)))
