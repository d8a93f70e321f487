"""Sampling, as nodes of other packs call it."""

from __future__ import annotations

from typing import Any


def common_ksampler(
    model: Any,
    seed: Any,
    steps: Any,
    cfg: Any,
    sampler_name: Any,
    scheduler: Any,
    positive: Any,
    negative: Any,
    latent: Any,
    denoise: float = 1.0,
) -> tuple[dict[str, Any]]:
    return ({"samples": model.sampled(latent["samples"], steps, positive)},)
