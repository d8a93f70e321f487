"""Graphs in the API's form, and what comes out of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from comfyui_server import ComfyUI
from reference import Content, Recipe, Reference

WIDTHS = (320, 640, 768)
RELU = Recipe(WIDTHS, (1, 1, 1), "relu", activate_output=False)
LINEAR = Recipe(WIDTHS, (1, 1, 1))
SETTINGS = {"seed": 1, "steps": 1, "cfg": 2.0, "sampler_name": "euler", "denoise": 1.0}
"""One step is enough where nothing changes over the steps: a CPU takes a while for each."""

Node = tuple[str, dict[str, Any]]


def graph(
    comfyui: ComfyUI, model: str = "0", extra: dict[str, Node] | None = None, **changes: Any
) -> dict[str, Any]:
    """Checkpoint, two prompts, an empty latent, a sampler on ``model``, and a file of its
    latent.

    Args:
        comfyui: the server.
        model: number of the node whose first output is sampled.
        extra: more nodes; replaces those with the same number.
        changes: of the sampler.
    """
    nodes = {
        "0": ("CheckpointLoaderSimple", {"ckpt_name": comfyui.checkpoints["sd1"]}),
        "1": ("CLIPTextEncode", {"clip": ["0", 1], "text": "a red apple"}),
        "2": ("CLIPTextEncode", {"clip": ["0", 1], "text": "blurry"}),
        "3": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "4": sampler([model, 0], **changes),
        "5": keep(comfyui, "a", "4"),
        **(extra or {}),
    }
    return {k: {"class_type": kind, "inputs": inputs} for k, (kind, inputs) in nodes.items()}


def sampler(model: list[Any], **changes: Any) -> Node:
    """A KSampler."""
    inputs = {"positive": ["1", 0], "negative": ["2", 0], "latent_image": ["3", 0]}
    return "KSampler", {"model": model, **inputs, **SETTINGS, "scheduler": "normal", **changes}


def keep(comfyui: ComfyUI, name: str, node: str) -> Node:
    """Writes a latent to a file."""
    return "ProbeKeep", {"latent": [node, 0], "model": ["0", 0], "file": file(comfyui, name)}


def apply(name: str, model: list[Any] | None = None, **inputs: Any) -> Node:
    """Our node for one network."""
    values = {"strength": 0.7, "blocks": "ALL", "attention": "both", "key": 1.0, "value": 1.0}
    return "HypernetworkApply", {"model": model or ["0", 0], "name": name, **values, **inputs}


def stack(**slots: Any) -> Node:
    """Our node for several."""
    return "HypernetworkStack", {"name_1": "None", "strength_1": 1.0, **slots}


def file(comfyui: ComfyUI, name: str) -> str:
    """Where the latent of that name is written."""
    return str(comfyui.folder / f"{name}.latent")


def latent(comfyui: ComfyUI, nodes: dict[str, Any], name: str = "a") -> torch.Tensor:
    """Runs a graph; the UNet must be as it was afterwards."""
    history = comfyui.run(nodes)
    assert history["status"]["status_str"] == "success", history["status"]
    for output in history["outputs"].values():
        assert output.get("left", []) == []
        assert output.get("text", []) == [], output
    found: torch.Tensor = torch.load(file(comfyui, name))
    return found


def write(comfyui: ComfyUI, name: str, recipe: Recipe = RELU) -> str:
    """A file that really changes the image; returns its path."""
    path = comfyui.folder / "models/hypernetworks" / f"{name}.pt"
    torch.save(recipe.content(), path)
    return str(path)


def by_hand(
    comfyui: ComfyUI,
    networks: list[tuple[str, str]],
    extra: dict[str, Node] | None = None,
    **spec: Any,
) -> torch.Tensor:
    """The latent with networks applied by the probe instead of our nodes."""
    return latent(comfyui, graph(comfyui, extra={"4": probe(networks, **spec), **(extra or {})}))


def probe(networks: list[tuple[str, str]], latent_of: str = "3", **spec: Any) -> Node:
    """A sampler with networks around it."""
    asked = {**SETTINGS, "how": "apply", "networks": networks, **spec}
    inputs = {"model": ["0", 0], "positive": ["1", 0], "negative": ["2", 0]}
    return "ProbeSample", {**inputs, "latent": [latent_of, 0], "spec": json.dumps(asked)}


def plain_file(comfyui: ComfyUI, name: str, content: Content) -> str:
    """The networks of a dictionary as AUTOMATIC1111 builds them, for the probe."""
    path = comfyui.folder / f"{name}.modules"
    torch.save(Reference(content).pairs, path)
    return str(path)


def relative(found: torch.Tensor, expected: torch.Tensor, plain: torch.Tensor) -> float:
    """The error as a share of the networks' effect, which must be there."""
    effect = (expected - plain).norm()
    assert effect > 1e-3 * plain.norm(), "the network has no effect"
    error = float((found - expected).norm() / effect)
    print(f"effect {float(effect / plain.norm()):.3g}, error {error:.2g} of the effect")
    return error


def assert_same(found: torch.Tensor, expected: torch.Tensor, plain: torch.Tensor) -> None:
    """To 1e-5 of the effect."""
    assert relative(found, expected, plain) <= 1e-5


def suffixed(path: str, suffix: str) -> Path:
    """The same name with another suffix."""
    return Path(path).with_suffix(suffix)
