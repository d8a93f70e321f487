"""SD2 and SDXL: ``pytest tests/real_host -k families --webui PATH --webui-families sdxl=NAME``.

Random weights will do: see ``make_checkpoint.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from webui_client import Made, Webui, difference

PROJECTIONS = {"sd2": 64, "sdxl": 280, "vega": 60}
"""``to_k`` and ``to_v`` of the whole UNet."""
LABELS = {"sd2": "SD2", "sdxl": "SDXL", "vega": "SDXL"}
ERRORS = {"torch.float32": 1e-5, "torch.float16": 2e-3, "torch.bfloat16": 2e-2}
"""Largest relative error of a context, by the dtype that the webui computes in."""


class Family:
    """A webui with a checkpoint of one family.

    Args:
        probed: the webui.
        key: the family's.
        checkpoint: as the webui lists it.
    """

    def __init__(self, probed: Webui, key: str, checkpoint: str) -> None:
        self.webui, self.key = probed, key
        self.settings = {"override_settings": {"sd_model_checkpoint": checkpoint}, "steps": 1}
        self.network = f"for {LABELS[key].lower()}"

    def txt2img(self, prompt: str, **more: Any) -> Made:
        """An image of one step."""
        return self.webui.txt2img(prompt, **self.settings, **more)

    def known(self, prompt: str, **more: Any) -> Made:
        """The same, made once."""
        return self.webui.known(prompt, **self.settings, **more)


@pytest.fixture(scope="module")
def family(request: pytest.FixtureRequest, probed: Webui) -> Family:
    """One of those that ``--webui-families`` names."""
    key, _, checkpoint = request.param.partition("=")
    return Family(probed, key, checkpoint)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test once per family."""
    if "family" in metafunc.fixturenames:
        given = [part for part in metafunc.config.getoption("--webui-families").split(",") if part]
        none = pytest.param("", marks=pytest.mark.skip(reason="no --webui-families FAMILY=NAME"))
        metafunc.parametrize("family", given or [none], indirect=True, scope="module")


@pytest.mark.timeout(3600)
def test_a_network_of_the_family_acts(family: Family, tmp_path: Path) -> None:
    plain = family.known("x ")
    family.webui.record("attn")
    made = family.txt2img(f"x <hypernet:{family.network}:0.7>")
    recording = family.webui.recorded(tmp_path / "recorded.pt")
    state = family.webui.state()
    assert made.messages == ""
    assert recording.projections == PROJECTIONS[family.key]
    error, where = recording.error([(f"{family.network}.pt", 0.7)])
    print(f"stored as {state['stored_as']}, computed in {state['computed_in']}: error {error:.1e}")
    assert error <= ERRORS[state["computed_in"]], where
    assert difference(made.picture, plain.picture) > 0


@pytest.mark.timeout(3600)
def test_a_network_of_another_family_is_left_out(family: Family) -> None:
    plain = family.known("x ")
    made = family.txt2img("x <hypernet:small:1>")
    assert LABELS[family.key] in made.messages
    assert difference(made.picture, plain.picture) == 0
    names = f"name=small&name={quote(family.network)}"
    told = family.webui.get(f"/hypernetworks/v1/check?{names}")["networks"]
    assert LABELS[family.key] in told["small"]["problem"]
    assert told[family.network]["problem"] is None


@pytest.mark.timeout(3600)
def test_each_image_of_a_batch_has_its_own_networks(family: Family) -> None:
    prompts = ("x ", f"x <hypernet:{family.network}:0.7>")
    family.webui.post("/probe/prompts", {"prompts": prompts})
    made = family.txt2img("x ", batch_size=2)
    first, second = made.pictures[-2:]
    alone = family.known("x ").picture
    effect = difference(*(family.known(prompt, seed=2).picture for prompt in prompts))
    unlike = difference(second, family.known(prompts[1], seed=2).picture)
    print(f"from the single images: {difference(first, alone)}, {unlike}; the network: {effect}")
    assert difference(first, alone) <= 2
    assert unlike <= max(2, effect // 4)


@pytest.mark.timeout(3600)
def test_sd1_still_works_afterwards(family: Family, checkpoints: tuple[str, str]) -> None:
    before = family.webui.known("x <hypernet:small:1>")
    assert family.txt2img(f"x <hypernet:{family.network}:0.7>").messages == ""
    back = {"override_settings": {"sd_model_checkpoint": checkpoints[0]}}
    after = family.webui.txt2img("x <hypernet:small:1>", **back)
    assert difference(before.picture, after.picture) == 0
