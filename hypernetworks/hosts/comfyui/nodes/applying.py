"""*Apply Hypernetwork* and *Apply Hypernetwork Stack*."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ....engine.multiplier import Multiplier
from ....errors import HypernetworkError
from ..networks import Messages, checker, multiplier_of, resolve
from ..sampling import Applied, with_networks
from . import fields


class ApplyHypernetwork(fields.OfOneFile):
    """One network on a model."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        inputs = [
            io.Model.Input("model"),
            fields.name_input(),
            fields.strength_input(),
            *fields.refinements(),
            fields.schedule_input(),
        ]

        return io.Schema(
            node_id="HypernetworkApply",
            display_name="Apply Hypernetwork",
            category=fields.CATEGORY,
            description="Applies a hypernetwork to a model, as AUTOMATIC1111 computes it. "
            "A file that is missing or doesn't fit is skipped, with a message.",
            inputs=inputs,
            outputs=[io.Model.Output(display_name="model")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        name: str,
        strength: float,
        blocks: str = "ALL",
        attention: str = "both",
        key: float = 1.0,
        value: float = 1.0,
        block_factors: str = "",
        schedule: Multiplier | None = None,
    ) -> Any:
        """A clone of the model with the network; without it, and with a message, where it can't be
        used.
        """
        messages = Messages(cls.hidden.unique_id)

        try:
            multiplier = multiplier_of(
                strength,
                schedule,
                blocks=block_factors.strip() or blocks,
                attention=attention,
                key=key,
                value=value,
            )
        except HypernetworkError as error:
            messages.tell(f"block_factors: {error} (the image is generated without {name})")
            return io.NodeOutput(model, ui=messages.ui)

        found = resolve(name, multiplier, model, messages.tell)
        return io.NodeOutput(with_networks(model, found) if found else model, ui=messages.ui)


class ApplyStack(io.ComfyNode):  # type: ignore[misc]
    """Several networks on a model."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        return io.Schema(
            node_id="HypernetworkApplyStack",
            display_name="Apply Hypernetwork Stack",
            category=fields.CATEGORY,
            description="Applies all networks of a stack to a model, in their order.",
            inputs=[io.Model.Input("model"), fields.Stack.Input("stack")],
            outputs=[io.Model.Output(display_name="model")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Any, stack: tuple[Applied, ...]) -> Any:
        """A clone of the model with those networks of the stack that fit it."""
        # A stack is made before its model is known, so what doesn't fit shows only here.
        messages, fitting = Messages(cls.hidden.unique_id), []
        check = checker(model)
        for applied in stack:
            try:
                check(applied.network, applied.multiplier)
                fitting.append(applied)
            except HypernetworkError as error:
                messages.tell(
                    f"{applied.network.name}: {error} (the image is generated without it)"
                )
        return io.NodeOutput(with_networks(model, fitting) if fitting else model, ui=messages.ui)
