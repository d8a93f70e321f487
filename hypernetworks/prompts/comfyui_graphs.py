"""The settings in a graph of ComfyUI: those of its first sampler and of the nodes before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST_NODES = 10_000
"""Nodes of a graph that are visited."""
_SETTINGS = ("seed", "noise_seed", "steps", "cfg", "sampler_name", "scheduler")
_NETWORKS = ("HypernetworkLoader", "HypernetworkApply")
_UNDERSTOOD = (
    *_NETWORKS,
    "CLIPTextEncode",
    "CheckpointLoaderSimple",
    "EmptyLatentImage",
    "KSampler",
    "KSamplerAdvanced",
    "PreviewImage",
    "SaveImage",
    "VAEDecode",
)

Graph = Mapping[str, Any]


def is_graph(found: Mapping[str, Any]) -> bool:
    """Whether this is a graph of nodes by their numbers."""
    return bool(found) and all(
        isinstance(node, dict) and "class_type" in node for node in found.values()
    )


def settings_of_graph(graph: Graph) -> dict[str, Any]:
    """The settings by ComfyUI's names, with ``prompt``, ``negative_prompt``, ``width``, ``height``,
    ``model``, and ``hypernetworks`` as pairs of name and multiplier; nothing without a sampler.
    """
    sampler = next((node for node in graph.values() if "positive" in _inputs(node)), None)
    if sampler is None:
        return {}

    inputs = _inputs(sampler)
    settings = {key: _value(graph, inputs[key]) for key in _SETTINGS if key in inputs}
    settings["prompt"] = _first(graph, inputs["positive"], ("text", "text_g"))
    settings["negative_prompt"] = _first(graph, inputs.get("negative"), ("text", "text_g"))
    settings["model"] = _first(graph, inputs.get("model"), ("ckpt_name", "unet_name"))
    for key in ("width", "height"):
        settings[key] = _first(graph, inputs.get("latent_image"), (key,))

    # The node nearest to the checkpoint acts first.
    before = [*_before(graph, inputs.get("model"))]
    settings["hypernetworks"] = [
        (one.get("hypernetwork_name", one.get("name")), _multiplier(one))
        for node in reversed(before)
        if node["class_type"] in _NETWORKS and (one := _inputs(node))
    ]
    settings["nodes"] = ", ".join(sorted(_kinds(graph) - {*_UNDERSTOOD}))
    return settings


def _multiplier(node: Mapping[str, Any]) -> str:
    """The rest of a tag, from the inputs of a node that applies one network."""
    blocks = str(node.get("block_factors") or "").strip() or node.get("blocks", "ALL")
    arguments = [
        ("attn", node.get("attention", "both"), "both"),
        ("k", node.get("key", 1), 1),
        ("v", node.get("value", 1), 1),
        ("lbw", blocks, "ALL"),
    ]
    written = [str(node.get("strength", 1))]
    written += [f"{key}={value}" for key, value, usual in arguments if value != usual]
    return ":".join(written)


def _kinds(graph: Graph) -> set[str]:
    return {str(node["class_type"]) for node in graph.values()}


def _inputs(node: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs = node.get("inputs")
    return inputs if isinstance(inputs, dict) else {}


def _linked(graph: Graph, value: object) -> Mapping[str, Any] | None:
    """The node that a link comes from; ``None`` for a plain value."""
    is_link = isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)
    return graph.get(str(value[0])) if is_link else None  # type: ignore[index]


def _before(graph: Graph, link: object) -> Iterator[Mapping[str, Any]]:
    """The nodes that a link comes from, the nearest first, each once."""
    waiting, seen = [link], set[int]()
    while waiting and len(seen) < MOST_NODES:
        node = _linked(graph, waiting.pop(0))
        if node is not None and id(node) not in seen:
            seen.add(id(node))
            yield node
            waiting += _inputs(node).values()


def _first(graph: Graph, link: object, names: tuple[str, ...]) -> object:
    """The value of the nearest node that has one of these inputs."""
    for node in _before(graph, link):
        for name in names:
            value = _value(graph, _inputs(node).get(name))
            if value is not None:
                return value
    return None


def _value(graph: Graph, value: object) -> object:
    """A plain value, also where another node holds it (a primitive, a text, a seed)."""
    if not isinstance(value, list):
        return value
    node = _linked(graph, value)
    held = [v for v in _inputs(node).values() if isinstance(v, (str, int, float))] if node else []
    return held[0] if held else None
