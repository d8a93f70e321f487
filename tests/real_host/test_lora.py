"""A LoRA and a hypernetwork in one prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
from webui_client import Webui, difference

VISIBLE = 8
TIGHT = 1e-5
LORA, NETWORK = "<lora:some:1>", "<hypernet:relu:0.7>"


def test_both_act(probed: Webui) -> None:
    plain, lora, network, both = (
        probed.known(prompt).picture
        for prompt in ("x ", f"x {LORA}", f"x {NETWORK}", f"x {LORA}{NETWORK}")
    )
    assert difference(plain, lora) >= VISIBLE
    assert difference(plain, network) >= VISIBLE
    assert difference(both, lora) >= VISIBLE
    assert difference(both, network) >= VISIBLE


def test_the_contexts_follow_the_formula(probed: Webui, tmp_path: Path) -> None:
    probed.record("attn")
    probed.txt2img(f"x {NETWORK}{LORA}")
    recording = probed.recorded(tmp_path / "recorded.pt")
    assert recording.projections == 64
    for call in range(len(recording.calls)):
        error, where = recording.error([("relu.pt", 0.7)], call)
        print(f"largest relative error {error:.1e} at {where}")
        assert error <= TIGHT, where


def test_one_goes_the_other_stays(probed: Webui) -> None:
    probed.txt2img(f"x {LORA}{NETWORK}")
    assert difference(probed.txt2img(f"x {LORA}").picture, probed.known(f"x {LORA}").picture) == 0
    assert (
        difference(probed.txt2img(f"x {NETWORK}").picture, probed.known(f"x {NETWORK}").picture)
        == 0
    )
    assert difference(probed.txt2img("x ").picture, probed.known("x ").picture) == 0


def test_multiplier_0_beside_a_lora(probed: Webui) -> None:
    made = probed.txt2img(f"x {LORA}<hypernet:relu:0>")
    assert difference(made.picture, probed.known(f"x {LORA}").picture) == 0


# Linear networks are folded into weights that a LoRA rewrites

LINEAR, SELF_PROJECTIONS = "<hypernet:linear:0.7>", 32


@pytest.mark.parametrize("lora", ["", LORA], ids=["alone", "with a LoRA"])
def test_a_folded_network_is_what_the_context_would_be(
    probed: Webui, tmp_path: Path, lora: str
) -> None:
    probed.post("/probe/arm", {"folded": True})
    folded = probed.txt2img(f"x {LINEAR}{lora}").picture
    assert set(probed.post("/probe/recorded")["folded"][1:]) == {SELF_PROJECTIONS}
    probed.record(
        "nothing"
    )  # the probe's own forwards are in the way: networks act on the contexts
    by_context = probed.txt2img(f"x {LINEAR}{lora}").picture
    probed.recorded(tmp_path / "recorded.pt")
    assert difference(folded, probed.known(f"x {lora}").picture) >= VISIBLE
    assert difference(folded, by_context) <= 1
    assert difference(probed.txt2img(f"x {lora}").picture, probed.known(f"x {lora}").picture) == 0


def test_a_lora_that_comes_and_goes_beneath_a_folded_network(probed: Webui) -> None:
    alone, both = (probed.txt2img(f"x {LINEAR}{lora}").picture for lora in ("", LORA))
    assert difference(alone, both) >= VISIBLE
    assert difference(probed.txt2img(f"x {LINEAR}").picture, alone) == 0
    assert difference(probed.txt2img(f"x {LORA}").picture, probed.known(f"x {LORA}").picture) == 0
    assert difference(probed.txt2img(f"x {LINEAR}{LORA}").picture, both) == 0
