"""At which step a diffusers scheduler is: held against the schedulers of diffusers themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hypernetworks.hosts.steps import position


@pytest.mark.parametrize(
    ("scheduler", "runs", "expected"),
    [
        ({"order": 1}, 3, [0, 1, 2]),
        ({"order": 2}, 5, [0, 0, 1, 1, 2]),  # Heun
        ({"order": 1, "prk_timesteps": []}, 4, [0, 0, 1, 2]),  # PNDM without Runge-Kutta steps
        ({"order": 1, "prk_timesteps": [0] * 12}, 14, [0] * 4 + [1] * 4 + [2] * 4 + [3, 4]),
    ],
)
def test_steps_of_schedulers(scheduler: dict[str, Any], runs: int, expected: list[int]) -> None:
    own = SimpleNamespace(**scheduler)
    assert [position(own, run, runs)[0] for run in range(runs)] == expected
    assert {position(own, run, runs)[1] for run in range(runs + 1)} == {expected[-1] + 1}


@pytest.mark.parametrize(
    ("name", "settings", "steps"),
    [
        ("DDIM", {}, 5),
        ("EulerDiscrete", {}, 5),
        ("EulerAncestralDiscrete", {}, 5),
        ("DPMSolverMultistep", {}, 5),
        ("UniPCMultistep", {}, 5),
        ("LCM", {}, 4),
        ("HeunDiscrete", {}, 5),
        ("KDPM2Discrete", {}, 5),
        ("KDPM2AncestralDiscrete", {}, 5),
        ("DPMSolverSinglestep", {}, 5),
        ("DEISMultistep", {}, 5),
        ("DDPM", {}, 5),
        ("TCD", {}, 5),
        ("PNDM", {"skip_prk_steps": True}, 5),
        ("PNDM", {}, 6),
    ],
)
def test_every_step_comes_once_in_order_and_the_last_run_is_the_last_step(
    name: str, settings: dict[str, Any], steps: int
) -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, f"{name}Scheduler")(**settings)
    scheduler.set_timesteps(steps)
    runs = len(scheduler.timesteps)

    seen = [position(scheduler, run, runs) for run in range(runs)]
    assert {total for _, total in seen} == {steps}
    assert list(dict.fromkeys(step for step, _ in seen)) == list(range(steps))
    assert [step for step, _ in seen] == sorted(step for step, _ in seen)


def test_a_strength_below_one_counts_the_steps_that_are_run() -> None:
    scheduler = SimpleNamespace(order=1, timesteps=range(20))
    assert [position(scheduler, run, 6) for run in (0, 5)] == [(0, 6), (5, 6)]


@pytest.mark.parametrize(
    "name", ["DDIM", "HeunDiscrete", "UniPCMultistep", "LCM", "KDPM2Discrete", "EulerDiscrete"]
)
@pytest.mark.parametrize("strength", [0.3, 0.8])
def test_image_to_image_as_diffusers_pipelines_do_it(name: str, strength: float) -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, f"{name}Scheduler")()
    scheduler.set_timesteps(10)
    own = diffusers.StableDiffusionImg2ImgPipeline.get_timesteps
    runs, _ = own(SimpleNamespace(scheduler=scheduler), 10, strength, "cpu")

    seen = [position(scheduler, run, len(runs)) for run in range(len(runs))]
    steps = round(10 * strength)
    assert list(dict.fromkeys(seen)) == [(step, steps) for step in range(steps)]
