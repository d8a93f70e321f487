"""The settings in a graph of ComfyUI: those of its first sampler and of the nodes before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST_NODES = 10_000
"""Nodes of a graph that are visited."""
_SETTINGS = ("seed", "noise_seed", "steps", "cfg", "sampler_name", "scheduler")
_OF_SAMPLERS = ("seed", "noise_seed", "steps", "sampler_name")
"""Inputs that tell a sampler from the nodes between it and the prompts, such as ControlNet's."""
_PARTS = ("guider", "noise", "sampler", "sigmas")
"""Inputs of a SamplerCustomAdvanced: nodes that hold what a KSampler has as its own inputs."""
_NETWORKS = ("HypernetworkLoader", "HypernetworkApply")
_UNDERSTOOD = (
    *_NETWORKS,
    "BasicGuider",
    "BasicScheduler",
    "CFGGuider",
    "CLIPTextEncode",
    "CheckpointLoaderSimple",
    "EmptyLatentImage",
    "KSampler",
    "KSamplerAdvanced",
    "KSamplerSelect",
    "PreviewImage",
    "RandomNoise",
    "SamplerCustom",
    "SamplerCustomAdvanced",
    "SaveImage",
    "VAEDecode",
)

Graph = Mapping[str, Any]


def is_graph(found: Mapping[str, Any]) -> bool:
    """Whether this is a graph of nodes by their numbers."""
    return bool(found) and all(
        isinstance(node, dict) and "class_type" in node for node in found.values()
    )


def settings_of_graph(graph: Graph) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What the first sampler of a graph does.

    Returns:
        The settings by ComfyUI's names, with ``prompt``, ``negative_prompt``, ``width``, ``height``
        and ``model``; nothing without a sampler. And the networks, each with the rest of its tag.
    """
    inputs = _sampler_inputs(graph)
    if inputs is None:
        return {}, []

    settings = {key: _value(graph, inputs[key]) for key in _SETTINGS if key in inputs}
    settings["prompt"] = _first(graph, inputs.get("positive"), ("text", "text_g"))
    settings["negative_prompt"] = _first(graph, inputs.get("negative"), ("text", "text_g"))
    settings["model"] = _first(graph, inputs.get("model"), ("ckpt_name", "unet_name"))
    for key in ("width", "height"):
        settings[key] = _first(graph, inputs.get("latent_image"), (key,))
    settings["nodes"] = ", ".join(sorted(_kinds(graph) - {*_UNDERSTOOD}))

    # The node nearest to the checkpoint acts first.
    before = [*_before(graph, inputs.get("model"))]
    networks = [
        _network(graph, node) for node in reversed(before) if node["class_type"] in _NETWORKS
    ]
    return settings, [network for network in networks if network is not None]


def _sampler_inputs(graph: Graph) -> dict[str, Any] | None:
    """The inputs of the first sampler, with those of the nodes that it is made of.

    Without a node that looks like a sampler, they are those of the first with a prompt.
    """
    candidates = [_with_parts(graph, _inputs(node)) for node in graph.values()]
    prompted = [inputs for inputs in candidates if "positive" in inputs]
    samplers = [inputs for inputs in prompted if any(key in inputs for key in _OF_SAMPLERS)]
    return next(iter(samplers or prompted), None)


def _with_parts(graph: Graph, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a node, and those of its guider, noise, sampler and sigmas."""
    found = dict(inputs)
    for name in _PARTS:
        part = _inputs(_linked(graph, inputs.get(name)) or {})
        # A BasicGuider has one prompt.
        own = {"positive" if key == "conditioning" else key: part[key] for key in part}
        found = {**own, **found}
    return found


def _network(graph: Graph, node: Mapping[str, Any]) -> tuple[str, str] | None:
    """The name of a node's network, and the rest of its tag; ``None`` without a name."""
    inputs = {key: _value(graph, value) for key, value in _inputs(node).items()}
    name = inputs.get("hypernetwork_name", inputs.get("name"))
    return (name, _multiplier(inputs)) if isinstance(name, str) else None


def _multiplier(inputs: Mapping[str, object]) -> str:
    """The rest of a tag, from the inputs of a node that applies one network."""
    # What a node computes isn't in the graph: such an input is taken as the usual one.
    given = {k: v for k, v in inputs.items() if v is not None and ">" not in str(v)}
    blocks = str(given.get("block_factors", "")).strip() or given.get("blocks", "ALL")
    arguments = [
        ("attn", given.get("attention", "both"), "both"),
        ("k", given.get("key", 1), 1),
        ("v", given.get("value", 1), 1),
        ("lbw", blocks, "ALL"),
    ]
    written = [str(given.get("strength", 1))]
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
        link = waiting.pop(0)
        node = _linked(graph, link)
        if node is not None and id(node) not in seen:
            seen.add(id(node))
            yield node
            waiting += _followed(_inputs(node), link)


def _followed(inputs: Mapping[str, Any], link: Any) -> list[Any]:
    """The inputs that a node's output is made of: of both prompts, only the one that comes out."""
    is_pair = "positive" in inputs and "negative" in inputs
    if is_pair and link[1] in (0, 1) and not any(key in inputs for key in _OF_SAMPLERS):
        return [inputs[("positive", "negative")[link[1]]]]
    return [*inputs.values()]


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
