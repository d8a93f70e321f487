"""The list of nodes that ComfyUI asks for."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import ComfyExtension

from .nodes.applying import ApplyHypernetwork, ApplyStack
from .nodes.comparing import CompareHypernetworks
from .nodes.conditioning import HypernetworksOnConditioning
from .nodes.converting import BakeHypernetworks, HypernetworksToLora, MergeHypernetworks
from .nodes.inspecting import InspectHypernetwork
from .nodes.prompting import HypernetworksFromPrompt
from .nodes.scheduling import HypernetworkSchedule
from .nodes.stacking import HypernetworkStack

NODES: tuple[type[Any], ...] = (
    ApplyHypernetwork,
    HypernetworkStack,
    ApplyStack,
    HypernetworksFromPrompt,
    HypernetworksOnConditioning,
    HypernetworkSchedule,
    InspectHypernetwork,
    CompareHypernetworks,
    HypernetworksToLora,
    MergeHypernetworks,
    BakeHypernetworks,
)


class Extension(ComfyExtension):  # type: ignore[misc]
    """All nodes of this project."""

    async def get_node_list(self) -> list[type[Any]]:
        """The node classes, in the order of the menu."""
        return list(NODES)
