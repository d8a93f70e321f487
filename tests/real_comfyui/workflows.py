"""The example workflows: from the page's form to the API's, and small enough for a CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "example_workflows"
WORKFLOWS = sorted(FOLDER.glob("*.json"))
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def to_api(workflow: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """What the page would post.

    Args:
        workflow: as saved by the page.
        info: of ``/object_info``.
    """
    links = {link[0]: link for link in workflow["links"]}
    graph = {}
    for node in workflow["nodes"]:
        inputs = _widgets(node, info[node["type"]])
        for entry in node["inputs"]:
            if entry["link"] is not None:
                _, source, slot, *_ = links[entry["link"]]
                inputs[entry["name"]] = [str(source), slot]
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def _widgets(node: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """Values by name; behind a seed stands what happens to it after a run."""
    values, found = iter(node["widgets_values"]), {}
    for part in ("required", "optional"):
        for name, (kind, *options) in info["input"].get(part, {}).items():
            if isinstance(kind, list) or kind in WIDGETS:
                found[name] = next(values)
                if options and options[0].get("control_after_generate"):
                    next(values)
    assert next(values, None) is None, f"{node['type']} has more values than inputs"
    return found


def made_small(graph: dict[str, Any], checkpoint: str) -> dict[str, Any]:
    """One step at 64 pixels."""
    for node in graph.values():
        inputs = node["inputs"]
        for name, value in {
            "steps": 1,
            "width": 64,
            "height": 64,
            "ckpt_name": checkpoint,
            "strengths": "0 1",
        }.items():
            if name in inputs:
                inputs[name] = value
    return graph
