"""Rows of UNet calls to pictures, the step of a pass, and the tags of a batch: what the webui hosts
work out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypernetworks.hosts.webui.batch import raw_prompts, tags_of
from hypernetworks.hosts.webui.batch_rows import Rows
from hypernetworks.hosts.webui.extra_network import position
from hypernetworks.prompts import parse


def call(count: int) -> tuple[torch.Tensor]:
    return (torch.zeros(count, 1),)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.data())
def test_a1111_goes_through_its_rows_in_order_however_it_splits_them(
    counts: list[int], data: st.DataObject
) -> None:
    """The conditions of each picture, then one unconditional row per picture, as CFGDenoiser lays
    them out."""
    expected = [picture for picture, count in enumerate(counts) for _ in range(count)] + list(
        range(len(counts))
    )
    rows = Rows(len(counts))
    for _ in range(2):
        rows.begin_step(counts)
        found, left = list[int](), len(expected)
        while left:
            size = data.draw(st.integers(1, left))
            found += rows.of_call(call(size), {}) or []
            left -= size
        assert found == expected
    assert not rows.lost


@given(st.integers(1, 5), st.lists(st.integers(0, 1), min_size=1, max_size=4))
def test_forge_says_how_many_conditions_a_call_holds(pictures: int, conditions: list[int]) -> None:
    rows = Rows(pictures)
    rows.begin_step(None)
    options = {"transformer_options": {"cond_or_uncond": conditions}}
    assert rows.of_call(call(pictures * len(conditions)), options) == list(range(pictures)) * len(
        conditions
    )
    assert not rows.lost


def test_a_call_that_fits_no_batch_is_reported() -> None:
    rows = Rows(3)
    rows.begin_step(None)
    assert rows.of_call(call(2), {"transformer_options": {"cond_or_uncond": [1]}}) is None
    assert rows.lost


def test_other_conditions_than_pictures_are_reported() -> None:
    rows = Rows(2)
    rows.begin_step([1, 1, 1])
    assert rows.lost


def denoiser(step: int, steps: int, total: int, name: str = "Euler") -> SimpleNamespace:
    sampler = SimpleNamespace(config=SimpleNamespace(name=name))
    return SimpleNamespace(step=step, steps=steps, total_steps=total, sampler=sampler)


@pytest.mark.parametrize(
    ("runs", "steps", "total", "name", "expected"),
    [
        (range(4), 4, 4, "Euler", [0, 1, 2, 3]),
        (range(5), 3, 6, "Heun", [0, 0, 1, 1, 2]),
        (range(7), 3, 6, "Restart", [0, 0, 1, 1, 2, 2, 2]),
        (range(4), 3, 3, "PLMS", [0, 0, 1, 2]),
        (range(4), 3, 3, "UniPC", [0, 1, 2, 2]),
    ],
)
def test_extra_runs_of_the_unet_keep_the_steps_value(
    runs: range, steps: int, total: int, name: str, expected: list[int]
) -> None:
    assert [position(denoiser(run, steps, total, name)) for run in runs] == [
        (step, steps) for step in expected
    ]


@pytest.mark.parametrize(
    ("runs", "steps", "from_picture", "name", "expected"),
    [
        (range(3), 4, False, "DDIM", [0, 1, 2]),
        (range(3), 3, False, "DDIM", [0, 1, 2]),
        (range(4), 4, False, "PLMS", [0, 0, 1, 2]),
        (range(4), 4, False, "UniPC", [0, 1, 2, 3]),
        (range(4), 3, False, "UniPC", [0, 1, 2, 3]),
        (range(3), 5, True, "DDIM", [0, 1, 2]),
        (range(4), 5, True, "PLMS", [0, 0, 1, 2]),
        (range(4), 5, True, "UniPC", [0, 1, 2, 3]),
    ],
)
def test_timestep_samplers_run_other_steps_than_the_host_says(
    runs: range, steps: int, from_picture: bool, name: str, expected: list[int]
) -> None:
    """Runs as counted in the real AUTOMATIC1111 1.10.1, Forge and reForge."""

    def at(run: int) -> tuple[int, int]:
        made = denoiser(run, steps, steps, name)
        made.p, made.init_latent = None, object() if from_picture else None
        made.sampler.get_timesteps = lambda _p, count: list(range(0, 1000, 1000 // count))
        return position(made)

    assert [at(run) for run in runs] == [(step, expected[-1] + 1) for step in expected]


def test_tags_of_each_picture() -> None:
    prompts = ["a <hypernet:x:1>", "b", "c <hypernet:y:0@0,1@1:hr=0.5><lora:z:1>"]
    found = tags_of([parse(prompt)[1] for prompt in prompts], [["x", "1"]])
    assert [[str(tag) for tag in tags] for tags in found] == [
        ["<hypernet:x:1>"], [], ["<hypernet:y:0@0,1@1:hr=0.5>"],
    ]  # fmt: skip


def test_a_script_that_changed_the_batchs_prompt_decides_for_all() -> None:
    found = tags_of([parse("a <hypernet:x:1>")[1], []], [["z", "0.3"]])
    assert [[str(tag) for tag in tags] for tags in found] == [["<hypernet:z:0.3>"]] * 2


def test_the_batchs_slice_of_all_prompts() -> None:
    p = SimpleNamespace(all_prompts=["a", "b", "c", None], iteration=1, batch_size=2)
    assert raw_prompts(p, "all_prompts") == ["c", ""]
    assert raw_prompts(p, "all_hr_prompts") == []
