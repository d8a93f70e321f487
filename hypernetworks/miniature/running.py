"""The training loop of the miniature itself: resumable, with EMA, warm-up and cosine decay.

Hypernetworks are trained by :mod:`hypernetworks.training`; this one trains the base model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ..files.writing import replace
from ..progress import Progress


def learning_rate(step: int, steps: int, warm_up: int = 200) -> float:
    """Factor of the peak rate: linear warm-up, then half a cosine down to 2 %."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


class Ema:
    """An exponential moving average of a module's parameters, in fp32."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.values = [p.detach().clone() for p in module.parameters()]

    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's parameters, faster in the first steps."""
        # With the full decay from the start, the average would hold the initial weights for long.
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [p.detach() for p in module.parameters()]
        torch._foreach_mul_(self.values, decay)
        torch._foreach_add_(self.values, current, alpha=1 - decay)

    def copy_to(self, module: nn.Module) -> None:
        """Write the averages into the module, in place."""
        for parameter, value in zip(module.parameters(), self.values, strict=True):
            parameter.data.copy_(value)


def run(
    module: nn.Module,
    loss_of: Callable[[nn.Module, torch.Generator, int], torch.Tensor],
    steps: int,
    folder: Path,
    *,
    rate: float,
    seed: int = 0,
    save_every: int = 250,
    bf16: bool = False,
    weight_decay: float = 0.01,
) -> None:
    """Train ``module`` in place for ``steps`` optimizer steps; it ends with the averaged weights.

    ``loss_of(module, generator, step)`` draws its batch from the generator, so a resumed run
    continues the same sequence. ``checkpoint.pt`` is written every ``save_every`` steps.
    """
    path = folder / "checkpoint.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
    )
    generator = torch.Generator().manual_seed(seed)
    ema, start = Ema(module), 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        generator.set_state(state["generator"])
        ema.values, start = state["ema"], state["step"]
    module.train()

    running, began = 0.0, time.monotonic()
    with Progress(steps, folder.name, initial=start) as progress:
        for step in range(start, steps):
            for group in optimiser.param_groups:
                group["lr"] = rate * learning_rate(step, steps)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = loss_of(module, generator, step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            ema.update(module, step)
            # A single loss depends on the random time steps; the mean shows the trend.
            running = loss.item() if step == start else 0.99 * running + 0.01 * loss.item()
            progress.update(step + 1, f"loss {running:.4f}")
            if (step + 1) % save_every == 0 or step + 1 == steps:
                state = {
                    "step": step + 1,
                    "module": module.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "generator": generator.get_state(),
                    "ema": ema.values,
                }
                replace(path, partial(torch.save, state))
                _log(folder, f"{step + 1},{running:.5f},{time.monotonic() - began:.1f}")

    ema.copy_to(module)
    module.eval()


def _log(folder: Path, line: str) -> None:
    with (folder / "log.csv").open("a", encoding="utf-8") as log:
        log.write(f"{line}\n")
