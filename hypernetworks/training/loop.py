"""The training loop: draws batches, steps the optimiser, reports, saves; knows no dataset and no host."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import functional

from ..engine.network import Hypernetwork
from ..errors import TrainingError
from ..files import write
from ..files.writing import replace as replace_file
from .objective import NoiseSchedule

Predict = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""``(noisy latents, time steps, context)`` -> what the UNet predicts, of the latents' shape."""


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Attributes:
        latents: clean latents ``(batch, channels, height, width)``.
        context: text encoder states ``(batch, tokens, dim)``.
    """

    latents: torch.Tensor
    context: torch.Tensor


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that one run is made of, apart from the model and the data.

    Attributes:
        steps: optimiser steps.
        rate: peak learning rate of AdamW.
        warm_up: steps of linear warm-up; then half a cosine down to 5 %.
        clip: largest gradient norm.
        seed: of noise, time steps and batches.
        save_every: steps between checkpoints.
    """

    steps: int
    rate: float = 2e-3
    warm_up: int = 50
    clip: float = 1.0
    seed: int = 0
    save_every: int = 100


@dataclass(frozen=True)
class TrainingStep:
    """One finished step, for callbacks. ``step`` counts finished steps: the first is 1."""

    step: int
    loss: float
    rate: float
    gradient_norm: float


def train(
    network: Hypernetwork,
    predict: Predict,
    draw: Callable[[torch.Generator], Batch],
    schedule: NoiseSchedule,
    settings: TrainingSettings,
    *,
    folder: Path | None = None,
    on_step: Callable[[TrainingStep], None] | None = None,
) -> None:
    """Train ``network`` in place on a frozen UNet, and leave it ready for use.

    Args:
        predict: the UNet with the network applied at multiplier 1, its own parameters frozen.
        draw: gives the next batch; all its randomness comes from the generator it is given.
        schedule: how noise is added and what the UNet predicts.
        folder: where ``state.pt`` (for resuming) and ``NAME-STEP.safetensors`` go; ``None`` keeps nothing.
        on_step: called after every step; what it raises stops the run after the last finished step.

    Raises:
        TrainingError: the loss is no longer a finite number.
    """
    parameters = list(network.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=settings.rate, weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(settings.seed)
    start = _resume(folder, network, optimiser, generator)
    network.train()
    try:
        for step in range(start, settings.steps):
            done = _step(predict, draw(generator), schedule, optimiser, generator, settings, step)
            network.provenance = replace(network.provenance, step=done.step)
            if folder is not None and (done.step % settings.save_every == 0 or done.step == settings.steps):
                _save(folder, network, optimiser, generator, done.step)
            if on_step is not None:
                on_step(done)
    finally:
        network.train(False)


def _step(
    predict: Predict,
    batch: Batch,
    schedule: NoiseSchedule,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    settings: TrainingSettings,
    step: int,
) -> TrainingStep:
    rate = settings.rate * _rate_factor(step, settings)
    for group in optimiser.param_groups:
        group["lr"] = rate
    noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents)
    times = torch.randint(schedule.length, (len(noise),), generator=generator).to(batch.latents.device)
    noisy, target = schedule.noisy_and_target(batch.latents, noise, times)
    loss = functional.mse_loss(predict(noisy, times, batch.context).float(), target)
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss at step {step + 1} is {loss.item()}: start again with a lower learning rate")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = optimiser.param_groups[0]["params"]
    norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
    optimiser.step()
    return TrainingStep(step + 1, loss.item(), rate, norm.item())


def _rate_factor(step: int, settings: TrainingSettings) -> float:
    if step < settings.warm_up:
        return (step + 1) / settings.warm_up
    share = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share))


def _save(
    folder: Path, network: Hypernetwork, optimiser: torch.optim.Optimizer, generator: torch.Generator, step: int
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write(network, folder / f"{network.name}-{step}.safetensors")
    state = {
        "step": step,
        "parameters": [p.detach() for p in network.parameters()],
        "optimiser": optimiser.state_dict(),
        "generator": generator.get_state(),
    }
    replace_file(folder / "state.pt", lambda temporary: torch.save(state, temporary))


def _resume(
    folder: Path | None, network: Hypernetwork, optimiser: torch.optim.Optimizer, generator: torch.Generator
) -> int:
    """Continue from ``state.pt`` where there is one; returns the number of finished steps."""
    if folder is None or not (folder / "state.pt").exists():
        return 0
    state = torch.load(folder / "state.pt", weights_only=True)
    for parameter, saved in zip(network.parameters(), state["parameters"], strict=True):
        parameter.data.copy_(saved)
    optimiser.load_state_dict(state["optimiser"])
    generator.set_state(state["generator"])
    return int(state["step"])
