"""The example workflows: from the page's form to the API's, and small enough for a CPU."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "example_workflows"
WORKFLOWS = sorted(FOLDER.glob("*.json"))
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
NETWORKS = {"ink": 1, "night": 2}
"""Networks of the workflows for SD1, and seeds for them."""
SMALL = {"steps": 1, "width": 64, "height": 64, "strengths": "0 1"}


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
        inputs = {n: node["widgets_values"][i] for i, n in _widgets(info[node["type"]])}
        for entry in node["inputs"]:
            if entry["link"] is not None:
                _, source, slot, *_ = links[entry["link"]]
                inputs[entry["name"]] = [str(source), slot]
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def _widgets(info: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """Place and name of a node's values; behind a seed stands what happens to it after a run."""
    place = 0
    for part in ("required", "optional"):
        for name, (kind, *options) in info["input"].get(part, {}).items():
            if isinstance(kind, list) or kind in WIDGETS:
                yield place, name
                place += 2 if options and options[0].get("control_after_generate") else 1


def made_small(
    workflow: dict[str, Any], info: dict[str, Any], checkpoints: dict[str, str]
) -> dict[str, Any]:
    """One step at 64 pixels, with a checkpoint that is there."""
    workflow = copy.deepcopy(workflow)
    for node in workflow["nodes"]:
        for place, name in _widgets(info[node["type"]]):
            values = node["widgets_values"]
            if name == "ckpt_name":
                values[place] = checkpoints["sdxl" if "xl" in values[place] else "sd1"]
            values[place] = SMALL.get(name, values[place])
    return workflow
