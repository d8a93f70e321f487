"""Sampling passes of a real ComfyUI: schedules, blocks, samplers, hires, batches, conditionings,
and what fails in between. The networks that are compared with are applied by hand.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from comfyui_server import ComfyUI
from graphs import (
    LINEAR,
    RELU,
    Node,
    apply,
    assert_same,
    by_hand,
    file,
    graph,
    keep,
    latent,
    plain_file,
    probe,
    relative,
    sampler,
    stack,
    write,
)
from reference import Recipe

SLOPE = ("HypernetworkSchedule", {"points": "0.9@0,0.1@1", "start": 0.0, "stop": 1.0})
CALLS = {
    "euler": (0, 1, 2),
    "heun": (0, 0, 1, 1, 2),
    "dpm_2": (0, 0, 1, 1, 2),
    "heunpp2": (0, 0, 0, 1, 1, 2),
    "dpmpp_2m": (0, 1, 2),
    "lms": (0, 1, 2),
    "euler_ancestral": (0, 1, 2),
}
"""The step of each UNet call, in a pass of three."""


@pytest.mark.parametrize("name", CALLS)
def test_schedules_in_samplers(comfyui: ComfyUI, name: str) -> None:
    """Also of the second order: all evaluations of a step have its value."""
    ink = write(comfyui, "ink")
    how = {"sampler_name": name, "steps": 3}
    nodes: dict[str, Node] = {"8": SLOPE, "9": apply("ink.pt", schedule=["8", 0], strength=1.0)}
    found = latent(comfyui, graph(comfyui, "9", nodes, **how))
    expected = by_hand(comfyui, [(ink, "0.9@0,0.1@1")], calls=CALLS[name], **how)
    assert_same(found, expected, latent(comfyui, graph(comfyui, **how)))
    if len(CALLS[name]) > 3:
        wrong = sorted([*CALLS[name][1:], 2])
        other = by_hand(comfyui, [(ink, "0.9@0,0.1@1")], calls=wrong, **how)
        assert float((found - other).norm() / other.norm()) > 1e-5


@pytest.mark.parametrize(
    ("points", "start", "stop", "multiplier"),
    [
        ("1@0,0@1", 0.0, 1.0, "2@0,0@1"),
        ("0.7", 0.5, 1.0, "1.4:start=0.5"),
        ("0.7", 0.0, 0.4, "1.4:stop=0.4"),
        ("0@0,1@2", 0.0, 1.0, "0@0,2@2"),
    ],
)
def test_schedule(
    comfyui: ComfyUI, points: str, start: float, stop: float, multiplier: str
) -> None:
    ink = write(comfyui, "ink")
    schedule = ("HypernetworkSchedule", {"points": points, "start": start, "stop": stop})
    nodes: dict[str, Node] = {"8": schedule, "9": apply("ink.pt", schedule=["8", 0], strength=2.0)}
    found = latent(comfyui, graph(comfyui, "9", nodes, steps=3))
    expected = by_hand(comfyui, [(ink, multiplier)], steps=3, calls=(0, 1, 2))
    assert_same(found, expected, latent(comfyui, graph(comfyui, steps=3)))


KINDS = pytest.mark.parametrize("recipe", [RELU, LINEAR], ids=["relu", "linear"])


@KINDS
@pytest.mark.parametrize(
    ("inputs", "only"),
    [
        ({"attention": "cross"}, "attn2"),
        ({"attention": "self"}, "attn1"),
        ({"key": 0.0}, "to_v"),
        ({"value": 0.0, "attention": "cross"}, "attn2.to_k"),
    ],
    ids=["cross", "self", "values", "cross keys"],
)
def test_sides(
    comfyui: ComfyUI, plain: torch.Tensor, recipe: Recipe, inputs: dict[str, Any], only: str
) -> None:
    """Compared with hooks on these projections alone, by name."""
    write(comfyui, "ink", recipe)
    modules = plain_file(comfyui, "ink", recipe.content())
    found = latent(comfyui, graph(comfyui, "9", {"9": apply("ink.pt", **inputs)}))
    expected = by_hand(comfyui, [(modules, "0.7")], how="plain", only=only)
    assert relative(found, expected, plain) <= 1e-4


XL_WIDTHS = (640, 1280, 2048)


def xl(comfyui: ComfyUI) -> dict[str, Node]:
    """Nodes for the SDXL checkpoint."""
    return {"0": ("CheckpointLoaderSimple", {"ckpt_name": comfyui.checkpoints["sdxl"]})}


@KINDS
def test_sdxl_and_its_blocks(comfyui: ComfyUI, recipe: Recipe) -> None:
    """A checkpoint that ComfyUI loads as SDXL: its text is 2048 wide."""
    recipe, model = replace(recipe, widths=XL_WIDTHS), xl(comfyui)
    path = write(comfyui, "xl", recipe)
    without = latent(comfyui, graph(comfyui, extra=model))
    found = latent(comfyui, graph(comfyui, "9", {**model, "9": apply("xl.pt")}))
    assert_same(found, by_hand(comfyui, [(path, "0.7")], extra=model), without)

    modules = plain_file(comfyui, "xl", recipe.content())
    factors = ",".join("0" if number < 10 else "1" for number in range(11))
    for only, inputs in {
        "input_blocks": {"blocks": "INALL"},
        "output_blocks.[45][.]": {"blocks": "OUTS"},
        "output_blocks.5[.]": {"block_factors": factors},
    }.items():
        found = latent(comfyui, graph(comfyui, "9", {**model, "9": apply("xl.pt", **inputs)}))
        expected = by_hand(comfyui, [(modules, "0.7")], how="plain", only=only, extra=model)
        assert relative(found, expected, without) <= 1e-4

    assert torch.equal(latent(comfyui, graph(comfyui, extra=model)), without)


def test_a_network_of_another_family(comfyui: ComfyUI) -> None:
    """It costs a message, and not the image."""
    write(comfyui, "ink")
    model = xl(comfyui)
    without = latent(comfyui, graph(comfyui, extra=model))
    history = comfyui.run(graph(comfyui, "9", {**model, "9": apply("ink.pt")}))
    assert "made for" in str(history["outputs"]["9"]["text"])
    assert torch.equal(torch.load(file(comfyui, "a")), without)


def test_stack_and_tags(comfyui: ComfyUI, plain: torch.Tensor) -> None:
    # Names that no other test has in a second format, or a message says which one is meant.
    one, other = write(comfyui, "one"), write(comfyui, "other", LINEAR)
    nodes: dict[str, Node] = {
        "8": stack(name_1="one.pt", strength_1=0.7, name_2="other.pt", strength_2=0.4),
        "9": ("HypernetworkApplyStack", {"model": ["0", 0], "stack": ["8", 0]}),
    }
    expected = by_hand(comfyui, [(one, "0.7"), (other, "0.4")])
    assert_same(latent(comfyui, graph(comfyui, "9", nodes)), expected, plain)

    text = "a red apple<hypernet:one:0.7><hypernet:other:0.4>"
    tagged = graph(
        comfyui, "9", {"9": ("HypernetworksFromPrompt", {"model": ["0", 0], "text": text})}
    )
    tagged["1"]["inputs"]["text"] = ["9", 1]
    assert_same(latent(comfyui, tagged), expected, plain)

    chained: dict[str, Node] = {
        "7": stack(name_1="one.pt", strength_1=0.7),
        "8": stack(stack=["7", 0], name_1="None", name_2="other.pt", strength_2=0.4),
        "9": ("HypernetworkApplyStack", {"model": ["0", 0], "stack": ["8", 0]}),
    }
    assert_same(latent(comfyui, graph(comfyui, "9", chained)), expected, plain)


def test_hires_by_a_larger_latent(comfyui: ComfyUI) -> None:
    """The second pass begins anew, with multipliers of its own."""
    ink = write(comfyui, "ink")
    larger = {"upscale_method": "bilinear", "width": 96, "height": 96, "crop": "disabled"}

    def second(first: str) -> dict[str, Node]:
        return {
            "7": ("LatentUpscale", {"samples": [first, 0], **larger}),
            "5": keep(comfyui, "a", "8"),
        }

    how = {"steps": 2, "denoise": 0.5, "latent_image": ["7", 0]}
    text = "a red apple<hypernet:ink:1@0,0@1:hr=0.2@0,0.8@1>"
    nodes: dict[str, Node] = {
        "9": ("HypernetworksFromPrompt", {"model": ["0", 0], "text": text}),
        "8": sampler(["9", 3], **how),
        **second("4"),
    }
    found = latent(comfyui, graph(comfyui, "9", nodes, steps=2))

    # denoise 0.5: the last two of four steps, which are a pass of two for the schedule
    by_probe: dict[str, Node] = {
        "4": probe([(ink, "1@0,0@1")], steps=2, calls=(0, 1)),
        "8": probe([(ink, "0.2@0,0.8@1")], "7", steps=2, denoise=0.5, calls=(0, 1)),
        **second("4"),
    }
    expected = latent(comfyui, graph(comfyui, extra=by_probe))
    without = {"8": sampler(["0", 0], **how), **second("4")}
    assert_same(found, expected, latent(comfyui, graph(comfyui, extra=without, steps=2)))


def test_two_models_that_share_a_unet(comfyui: ComfyUI, plain: torch.Tensor) -> None:
    """Each has its own network, the third has none; in one graph."""
    ink, night = write(comfyui, "ink"), write(comfyui, "night", LINEAR)
    nodes: dict[str, Node] = {
        "8": apply("night.pt", strength=0.4),
        "9": apply("ink.pt"),
        "6": sampler(["0", 0]),
        "7": keep(comfyui, "b", "6"),
        "10": sampler(["8", 0]),
        "11": keep(comfyui, "c", "10"),
    }
    found = latent(comfyui, graph(comfyui, "9", nodes))
    others = [torch.load(file(comfyui, name)) for name in "bc"]
    assert_same(found, by_hand(comfyui, [(ink, "0.7")]), plain)
    assert torch.equal(others[0], plain)
    assert_same(others[1], by_hand(comfyui, [(night, "0.4")]), plain)


def test_batch(comfyui: ComfyUI) -> None:
    ink = write(comfyui, "ink")
    three: dict[str, Node] = {
        "3": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 3})
    }
    found = latent(comfyui, graph(comfyui, "9", {"9": apply("ink.pt"), **three}))
    assert found.shape[0] == 3
    without = latent(comfyui, graph(comfyui, extra=three))
    expected = by_hand(comfyui, [(ink, "0.7")], extra=three)
    for image in range(3):
        assert_same(found[image], expected[image], without[image])


def on_conditioning(
    text: str, networks: Node | None, first: int, mask: str = ""
) -> dict[str, Node]:
    """A prompt, with networks of its own and a mask: node ``first + 2`` has it."""
    number = str(first)
    nodes: dict[str, Node] = {number: ("CLIPTextEncode", {"clip": ["0", 1], "text": text})}
    if networks is not None:
        nodes[f"{first + 1}"] = networks
        hooked = {"conditioning": [number, 0], "stack": [f"{first + 1}", 0]}
        number = f"{first + 2}"
        nodes[number] = ("HypernetworkConditioning", hooked)
    masking = {"mask": [mask, 0], "strength": 1.0, "set_cond_area": "default"}
    if mask:
        nodes[f"{first + 3}"] = ("ConditioningSetMask", {"conditioning": [number, 0], **masking})
        number = f"{first + 3}"
    nodes[f"{first + 4}"] = (
        "ConditioningSetTimestepRange",
        {"conditioning": [number, 0], "start": 0.0, "end": 1.0},
    )
    return nodes


LEFT, RIGHT = "60", "61"


def halves() -> dict[str, Node]:
    """Two masks that share the image between them."""
    size = {"width": 64, "height": 64}
    half = {"width": 32, "height": 64}
    put = {"destination": ["62", 0], "source": ["63", 0], "y": 0, "operation": "add"}
    return {
        "62": ("SolidMask", {"value": 0.0, **size}),
        "63": ("SolidMask", {"value": 1.0, **half}),
        LEFT: ("MaskComposite", {**put, "x": 0}),
        RIGHT: ("MaskComposite", {**put, "x": 32}),
    }


@pytest.mark.parametrize("masked", [False, True], ids=["combined", "masked"])
@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
def test_conditionings_with_networks_of_their_own(
    comfyui: ComfyUI, masked: bool, both: bool
) -> None:
    """Each as if it had run alone: with one step and cfg 1, the image is the mean of theirs."""
    write(comfyui, "ink")
    write(comfyui, "night", LINEAR)
    ink, night = stack(name_1="ink.pt", strength_1=0.7), stack(name_1="night.pt", strength_1=0.4)
    own = [ink, night if both else None]
    texts = ["a red apple", "a green pear"]

    def sampled(conds: dict[str, Node], positive: str) -> torch.Tensor:
        return latent(comfyui, graph(comfyui, extra=conds, cfg=1.0, positive=[positive, 0]))

    alone = [sampled(on_conditioning(t, n, 20), "24") for t, n in zip(texts, own, strict=True)]
    without = [sampled(on_conditioning(t, None, 20), "24") for t in texts]
    masks = (LEFT, RIGHT) if masked else ("", "")
    nodes: dict[str, Node] = {
        **(halves() if masked else {}),
        **on_conditioning(texts[0], own[0], 20, masks[0]),
        **on_conditioning(texts[1], own[1], 30, masks[1]),
        "40": ("ConditioningCombine", {"conditioning_1": ["24", 0], "conditioning_2": ["34", 0]}),
    }
    together = sampled(nodes, "40")
    share = torch.full_like(together, 0.5)
    if masked:
        share[..., :4], share[..., 4:] = 1, 0
    expected = share * alone[0] + (1 - share) * alone[1]
    assert_same(together, expected, share * without[0] + (1 - share) * without[1])
    assert float((alone[0] - without[0]).norm() / without[0].norm()) > 1e-3


def test_a_conditioning_beside_a_network_of_the_model(
    comfyui: ComfyUI, plain: torch.Tensor
) -> None:
    """The model's acts on all, and first."""
    ink, night = write(comfyui, "ink"), write(comfyui, "night", LINEAR)
    nodes: dict[str, Node] = {
        "9": apply("night.pt", strength=0.4),
        "20": stack(name_1="ink.pt", strength_1=0.7),
        "21": ("HypernetworkConditioning", {"conditioning": ["1", 0], "stack": ["20", 0]}),
    }
    found = latent(comfyui, graph(comfyui, "9", nodes, positive=["21", 0], cfg=1.0))
    expected = by_hand(comfyui, [(night, "0.4"), (ink, "0.7")], cfg=1.0)
    assert_same(found, expected, latent(comfyui, graph(comfyui, cfg=1.0)))


def test_bypassed_it_is_the_same_bit_for_bit(comfyui: ComfyUI, plain: torch.Tensor) -> None:
    write(comfyui, "ink")
    changed = latent(comfyui, graph(comfyui, "9", {"9": apply("ink.pt")}))
    assert not torch.equal(changed, plain)
    latent(comfyui, graph(comfyui, seed=2))
    assert torch.equal(latent(comfyui, graph(comfyui)), plain)
    assert torch.equal(latent(comfyui, graph(comfyui, "9", {"9": apply("ink.pt")})), changed)


def test_interrupted(comfyui: ComfyUI, plain: torch.Tensor) -> None:
    """In the middle of a pass; then the next job, which was queued already, is as ever."""
    write(comfyui, "ink")
    large: dict[str, Node] = {
        "3": ("EmptyLatentImage", {"width": 128, "height": 128, "batch_size": 1})
    }
    long = comfyui.queue(graph(comfyui, "9", {"9": apply("ink.pt"), **large}, steps=200, seed=9))
    following = comfyui.queue(graph(comfyui))
    _wait_until(comfyui, lambda queue: long in str(queue["queue_running"]))
    time.sleep(3)
    comfyui.post("/interrupt", {})
    assert "interrupted" in str(comfyui.wait(long)["status"])
    history = comfyui.wait(following)
    assert history["status"]["status_str"] == "success"
    assert all(output.get("left", []) == [] for output in history["outputs"].values())
    assert torch.equal(torch.load(file(comfyui, "a")), plain)


def _wait_until(comfyui: ComfyUI, true_of: Any) -> None:
    end = time.monotonic() + 60
    while not true_of(comfyui.get("/queue")):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_an_exception_of_another_node(comfyui: ComfyUI, plain: torch.Tensor) -> None:
    write(comfyui, "ink")
    nodes: dict[str, Node] = {"9": apply("ink.pt"), "8": ("ProbeFail", {"model": ["9", 0]})}
    history = comfyui.run(graph(comfyui, "8", nodes))
    assert history["status"]["status_str"] == "error"
    assert "the probe fails" in str(history["status"])
    assert torch.equal(latent(comfyui, graph(comfyui)), plain)


def test_a_missing_network_costs_a_message(comfyui: ComfyUI, plain: torch.Tensor) -> None:
    history = comfyui.run(graph(comfyui, "9", {"9": apply("absent.pt")}))
    assert history["status"]["status_str"] == "success"
    assert torch.equal(torch.load(file(comfyui, "a")), plain)
    assert "absent" in history["outputs"]["9"]["text"][0]


def test_a_replaced_file_is_read_again_and_nothing_else_runs(
    comfyui: ComfyUI, plain: torch.Tensor
) -> None:
    path = Path(write(comfyui, "changing"))
    nodes = graph(comfyui, "9", {"9": apply("changing.pt")})
    before = latent(comfyui, nodes)

    def cached() -> set[str]:
        messages = comfyui.run(nodes)["status"]["messages"]
        return set(next(m[1]["nodes"] for m in messages if m[0] == "execution_cached"))

    path.touch()
    assert cached() == set(nodes)
    write(comfyui, "changing", LINEAR)
    assert cached() == {"0", "1", "2", "3"}
    after = torch.load(file(comfyui, "a"))
    assert not torch.equal(after, before)
    assert_same(after, by_hand(comfyui, [(str(path), "0.7")]), plain)
