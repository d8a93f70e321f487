"""*Hypernetworks on Conditioning*."""

from __future__ import annotations

from typing import Any

import comfy.hooks
from comfy_api.latest import io

from ..sampling import KEY, WRAPPERS, Applied
from . import fields


class HypernetworksOnConditioning(io.ComfyNode):  # type: ignore[misc]
    """Networks that act on one conditioning only."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        return io.Schema(
            node_id="HypernetworkConditioning",
            display_name="Hypernetworks on Conditioning",
            category=fields.CATEGORY,
            description="Lets networks act on one conditioning only: combine it with others, or "
            "give it a mask. Networks of the model act on all of them, and come first.",
            inputs=[io.Conditioning.Input("conditioning"), fields.Stack.Input("stack")],
            outputs=[io.Conditioning.Output(display_name="conditioning")],
        )

    @classmethod
    def execute(cls, conditioning: Any, stack: tuple[Applied, ...]) -> Any:
        """The conditioning with hooks; not changed in place."""
        if not stack:
            return io.NodeOutput(conditioning)
        return io.NodeOutput(comfy.hooks.set_hooks_for_conditioning(conditioning, hooks_for(stack)))


def hooks_for(stack: tuple[Applied, ...]) -> Any:
    """Two of ComfyUI's hooks: the networks for what they are attached to, the wrappers for the
    pass.
    """
    group = comfy.hooks.HookGroup()
    scope = comfy.hooks.EnumHookScope
    group.add(comfy.hooks.TransformerOptionsHook({KEY: list(stack)}, hook_scope=scope.HookedOnly))
    group.add(
        comfy.hooks.TransformerOptionsHook({"wrappers": WRAPPERS}, hook_scope=scope.AllConditioning)
    )
    return group
