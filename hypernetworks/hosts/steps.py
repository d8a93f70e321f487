"""At which step of a pass a diffusers scheduler is, counted from the runs of the UNet."""

from __future__ import annotations

import math
from typing import Any


def position(scheduler: Any, runs: int, total_runs: int) -> tuple[int, int]:
    """``(step, steps of the pass)`` after so many runs of the UNet, for schedules.

    Second-order schedulers run it twice per step, and once in the last. PNDM runs it four times in
    each of its first three steps, or, without Runge-Kutta steps, once more in the first one.

    Args:
        scheduler: of diffusers, with its timesteps set for this pass.
        runs: finished runs of the UNet in this pass; 0 before the first.
        total_runs: of the whole pass (a pipeline's ``num_timesteps``); with a strength below 1,
            fewer than the scheduler has. 0 takes the scheduler's.

    Returns:
        The step that the next run belongs to, from 0, and the number of steps.
    """
    total = total_runs or len(scheduler.timesteps)

    slow = getattr(scheduler, "prk_timesteps", None)
    if slow is not None:
        extra = len(slow) * 3 // 4 or 1  # runs beyond one per step
        runs, total = max(min(runs, len(slow)) // 4, runs - extra), total - extra

    per_step = max(1, int(getattr(scheduler, "order", 1)))
    steps = max(1, math.ceil(total / per_step))
    return min(runs // per_step, steps - 1), steps
