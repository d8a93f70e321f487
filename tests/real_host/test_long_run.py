"""Many generations in a row with changing tags, networks and checkpoints."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

import pytest
from webui_client import Made, Webui, difference

PROMPTS = (
    "x ",
    "x <hypernet:small:1>",
    "x <hypernet:other:0.5><hypernet:small:-0.3>",
    "x <hypernet:safe:0@0,1@1>",
    "x <hypernet:relu:0.7>",
    "x <hypernet:nothing:1>",
    "x <hypernet:linear:0.4:attn=cross>",
    "x <hypernet:swish:0.7><lora:some:0.5>",
    "x <hypernet:dropout:1>",
    "x <hypernet:one/twin:1><hypernet:two/twin:0.5>",
)
SWITCH_EVERY = 33
"""Jobs between two changes of the checkpoint."""
WARM_UP = 40
"""Jobs after which memory must not grow any more: every network has been read, both checkpoints
loaded."""
GROWTH = 300 << 20
"""Bytes that may come and go with the allocator."""


@pytest.mark.timeout(7200)
def test_many_jobs_in_a_row(
    probed: Webui,
    checkpoints: tuple[str, str],
    request: pytest.FixtureRequest,
    record_property: Any,
) -> None:
    runs: int = request.config.getoption("--webui-runs")
    first: dict[tuple[str, str], Made] = {}
    memory: list[tuple[int, int]] = []
    for number, prompt in enumerate(islice(cycle(PROMPTS), runs)):
        checkpoint = checkpoints[number // SWITCH_EVERY % 2]
        made = probed.txt2img(
            prompt, override_settings={"sd_model_checkpoint": checkpoint}, steps=1 + number % 2
        )
        known = first.setdefault((prompt, checkpoint), made)
        assert difference(known.picture, made.picture) == 0, (number, prompt)
        if number % 10 == 9:
            state = probed.state(collect=True)
            assert (state["our_hooks"], state["attributes"], state["hooks"]) == (0, [], 0), (
                number,
                prompt,
            )
            memory.append((state["resident_bytes"], state["tensors"]))
            print(
                f"{number + 1} jobs: {state['resident_bytes'] >> 20} MiB, {state['tensors']} "
                "tensors"
            )
    settled = memory[min(WARM_UP // 10, len(memory) // 2) :]
    record_property("resident MiB", [resident >> 20 for resident, _ in memory])
    half = len(settled) // 2
    early, late = (
        [max(column) for column in zip(*part, strict=True)]
        for part in (settled[:half], settled[half:])
    )
    print(
        f"from the first to the second half: {(late[0] - early[0]) / 2**20:.0f} MiB, "
        f"{late[1] - early[1]} tensors"
    )
    assert late[0] - early[0] <= GROWTH
    assert late[1] <= early[1] + 100
    probed.txt2img("x ", override_settings={"sd_model_checkpoint": checkpoints[0]})
