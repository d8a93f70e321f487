"""Images of a real ComfyUI, compared with ``hypernetworks.apply`` on the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from comfyui_server import ComfyUI
from reference import Recipe

STEPS = 1
"""One is enough where nothing changes over the steps: a CPU takes seconds for each."""
WIDTHS = (320, 640, 768, 1280)
VARIANTS: dict[str, Recipe] = {
    "linear": Recipe(WIDTHS, (1, 1, 1)),
    "relu": Recipe(WIDTHS, (1, 1, 1), "relu", activate_output=False),
    "relu-output": Recipe(WIDTHS, (1, 1, 1), "relu"),
    "norm": Recipe(WIDTHS, (1, 1, 1), "relu", layer_norm=True, activate_output=False),
    "dropout": Recipe(WIDTHS, (1, 1, 1), "mish", activate_output=False, dropout=(0, 0.3, 0)),
    "gelu-deep": Recipe(WIDTHS, (1, 0.5, 0.5, 1), "gelu", activate_output=False),
    "silu": Recipe(WIDTHS, (1, 0.5, 1), "silu", activate_output=False),
    "prelu": Recipe(WIDTHS, (1, 0.5, 1), "prelu", activate_output=False),
    "swish": Recipe(WIDTHS, (1, 0.5, 1), "swish", activate_output=False),
    "half": Recipe(WIDTHS, (1, 0.5, 1), "relu", activate_output=False, dtype=torch.float16),
    "text-only": Recipe((768,), (1, 2, 1), "tanh", activate_output=False),
}


def graph(
    comfyui: ComfyUI, model: str = "0", extra: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Checkpoint, two prompts, an empty latent, a sampler on ``model``, and a file of its
    latent.
    """
    checkpoint = next((comfyui.folder / "models/checkpoints").iterdir()).name
    nodes = {
        "0": ("CheckpointLoaderSimple", {"ckpt_name": checkpoint}),
        "1": ("CLIPTextEncode", {"clip": ["0", 1], "text": "a red apple"}),
        "2": ("CLIPTextEncode", {"clip": ["0", 1], "text": "blurry"}),
        "3": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "4": ("KSampler", sampler([model, 0])),
        "5": ("ProbeKeep", {"latent": ["4", 0], "model": ["0", 0], "file": file(comfyui, "a")}),
        **(extra or {}),
    }
    return {k: {"class_type": kind, "inputs": inputs} for k, (kind, inputs) in nodes.items()}


def sampler(model: list[Any], **changes: Any) -> dict[str, Any]:
    return {
        "model": model,
        "positive": ["1", 0],
        "negative": ["2", 0],
        "latent_image": ["3", 0],
        "seed": 1,
        "steps": STEPS,
        "cfg": 2.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
        **changes,
    }


def node(name: str, model: list[Any] | None = None, **inputs: Any) -> tuple[str, dict[str, Any]]:
    values = {"strength": 0.7, "blocks": "ALL", "attention": "both", "key": 1.0, "value": 1.0}
    return "HypernetworkApply", {"model": model or ["0", 0], "name": name, **values, **inputs}


def file(comfyui: ComfyUI, name: str) -> str:
    return str(comfyui.folder / f"{name}.latent")


def latent(comfyui: ComfyUI, nodes: dict[str, Any], name: str = "a") -> torch.Tensor:
    """Runs a graph; the UNet must be as it was afterwards."""
    history = comfyui.run(nodes)
    assert history["status"]["status_str"] == "success", history["status"]
    for output in history["outputs"].values():
        assert output.get("left", []) == []
    found: torch.Tensor = torch.load(file(comfyui, name))
    return found


def write(comfyui: ComfyUI, name: str, recipe: Recipe | None = None) -> str:
    """A file that really changes the image; returns its path."""
    content = (recipe or VARIANTS["relu"]).content()
    path = comfyui.folder / "models/hypernetworks" / f"{name}.pt"
    torch.save(content, path)
    return str(path)


@pytest.fixture(scope="module")
def plain(comfyui: ComfyUI) -> torch.Tensor:
    return latent(comfyui, graph(comfyui))


def by_hand(
    comfyui: ComfyUI, path: str, multiplier: str = "0.7", steps: int = STEPS
) -> torch.Tensor:
    inputs = {
        "model": ["0", 0],
        "positive": ["1", 0],
        "negative": ["2", 0],
        "latent": ["3", 0],
        "file": path,
        "multiplier": multiplier,
        "steps": steps,
        "denoise": 1.0,
    }
    return latent(comfyui, graph(comfyui, extra={"4": ("ProbeSample", inputs)}))


def assert_same(found: torch.Tensor, expected: torch.Tensor, plain: torch.Tensor) -> None:
    effect = (expected - plain).norm()
    assert effect > 1e-3 * plain.norm(), "the network has no effect"
    error = float((found - expected).norm() / effect)
    print(f"effect {float(effect / plain.norm()):.3g}, error {error:.2g} of the effect")
    assert error <= 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_as_apply_makes_it(
    comfyui: ComfyUI, plain: torch.Tensor, variant: str
) -> None:
    path = write(comfyui, variant, VARIANTS[variant])
    found = latent(comfyui, graph(comfyui, "9", {"9": node(f"{variant}.pt")}))
    assert_same(found, by_hand(comfyui, path), plain)


def test_bypassed_it_is_the_same_bit_for_bit(comfyui: ComfyUI, plain: torch.Tensor) -> None:
    write(comfyui, "ink")
    changed = latent(comfyui, graph(comfyui, "9", {"9": node("ink.pt")}))
    assert not torch.equal(changed, plain)
    again = graph(comfyui)
    again["4"]["inputs"]["seed"], again["1"]["inputs"]["text"] = 2, "something else"
    latent(comfyui, again)
    assert torch.equal(latent(comfyui, graph(comfyui)), plain)
    assert torch.equal(latent(comfyui, graph(comfyui, "9", {"9": node("ink.pt")})), changed)


def test_schedule(comfyui: ComfyUI, plain: torch.Tensor) -> None:
    ink = write(comfyui, "ink")
    schedule = ("HypernetworkSchedule", {"points": "0.7@0,0.2@1", "start": 0.0, "stop": 1.0})
    nodes = {"8": schedule, "9": node("ink.pt", schedule=["8", 0], strength=2.0)}
    scheduled = graph(comfyui, "9", nodes)
    scheduled["4"]["inputs"]["steps"] = 2
    found, expected = latent(comfyui, scheduled), by_hand(comfyui, ink, "1.4@0,0.4@1", 2)
    assert_same(found, expected, by_hand(comfyui, ink, "0", 2))


def test_stack_and_tags(comfyui: ComfyUI, plain: torch.Tensor) -> None:
    ink, night = write(comfyui, "ink"), write(comfyui, "night", VARIANTS["linear"])
    slots = {"name_1": "ink.pt", "strength_1": 0.7, "name_2": "night.pt", "strength_2": 0.4}
    nodes = {
        "8": ("HypernetworkStack", slots),
        "9": ("HypernetworkApplyStack", {"model": ["0", 0], "stack": ["8", 0]}),
    }
    expected = by_hand(comfyui, f"{ink}|{night}", "0.7|0.4")
    assert_same(latent(comfyui, graph(comfyui, "9", nodes)), expected, plain)

    text = "a red apple<hypernet:ink:0.7><hypernet:night:0.4>"
    tagged = graph(
        comfyui, "9", {"9": ("HypernetworksFromPrompt", {"model": ["0", 0], "text": text})}
    )
    tagged["1"]["inputs"]["text"] = ["9", 1]
    assert_same(latent(comfyui, tagged), expected, plain)


def test_two_models_of_one_checkpoint(comfyui: ComfyUI, plain: torch.Tensor) -> None:
    ink = write(comfyui, "ink")
    nodes = {
        "9": node("ink.pt"),
        "6": ("KSampler", sampler(["0", 0])),
        "7": ("ProbeKeep", {"latent": ["6", 0], "model": ["0", 0], "file": file(comfyui, "b")}),
    }
    found = latent(comfyui, graph(comfyui, "9", nodes))
    assert_same(found, by_hand(comfyui, ink), plain)
    assert torch.equal(torch.load(file(comfyui, "b")), plain)


def test_an_exception_of_another_node(comfyui: ComfyUI, plain: torch.Tensor) -> None:
    write(comfyui, "ink")
    failing = graph(comfyui, "8", {"9": node("ink.pt"), "8": ("ProbeFail", {"model": ["9", 0]})})
    history = comfyui.run(failing)
    assert history["status"]["status_str"] == "error"
    assert "the probe fails" in str(history["status"])
    again = graph(comfyui)
    again["3"]["inputs"]["batch_size"] = 2  # nothing of it is kept
    latent(comfyui, again)
    assert torch.equal(latent(comfyui, graph(comfyui)), plain)


def test_a_missing_network_costs_a_message(comfyui: ComfyUI, plain: torch.Tensor) -> None:
    nodes = graph(comfyui, "9", {"9": node("absent.pt")})
    history = comfyui.run(nodes)
    assert history["status"]["status_str"] == "success"
    assert torch.equal(torch.load(file(comfyui, "a")), plain)
    assert "absent" in history["outputs"]["9"]["text"][0]


def test_a_replaced_file_is_read_again_and_nothing_else_runs(
    comfyui: ComfyUI, plain: torch.Tensor
) -> None:
    path = Path(write(comfyui, "changing"))
    nodes = graph(comfyui, "9", {"9": node("changing.pt")})
    before = latent(comfyui, nodes)

    def cached() -> set[str]:
        messages = comfyui.run(nodes)["status"]["messages"]
        return set(next(m[1]["nodes"] for m in messages if m[0] == "execution_cached"))

    path.touch()
    assert cached() == set(nodes)
    write(comfyui, "changing", Recipe(WIDTHS, (1, 0.5, 1), "relu", activate_output=False, seed=5))
    assert cached() == {"0", "1", "2", "3"}
    after = torch.load(file(comfyui, "a"))
    assert not torch.equal(after, before)
    assert_same(after, by_hand(comfyui, str(path)), plain)
