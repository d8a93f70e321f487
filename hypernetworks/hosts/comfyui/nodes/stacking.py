"""*Hypernetwork Stack*."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ....engine.multiplier import Multiplier
from ..networks import NONE, Messages, fingerprint, multiplier_of, resolve
from ..sampling import Applied
from . import fields

SLOTS = 8
"""How many networks one node holds; nodes can be chained."""


class HypernetworkStack(io.ComfyNode):  # type: ignore[misc]
    """Several networks with their strengths."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        slots = [
            item
            for number in range(1, SLOTS + 1)
            for item in (
                fields.name_input(f"name_{number}", (NONE,), default=NONE, optional=number > 1),
                fields.strength_input(f"strength_{number}", optional=number > 1),
            )
        ]
        inputs = [
            *slots,
            fields.Stack.Input("stack", optional=True, tooltip="Networks that come first."),
            fields.schedule_input(),
        ]

        return io.Schema(
            node_id="HypernetworkStack",
            display_name="Hypernetwork Stack",
            category=fields.CATEGORY,
            description="Hypernetworks that are applied one after the other. Connect another stack "
            f"to put its networks first: one node holds {SLOTS}.",
            inputs=inputs,
            outputs=[fields.Stack.Output(display_name="stack")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, **_: Any) -> bool:
        """A missing file costs a message, not the queue."""
        return True

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        """By the content of the files."""
        return fingerprint(inputs.get(f"name_{number}") for number in range(1, SLOTS + 1))

    @classmethod
    def execute(
        cls,
        stack: tuple[Applied, ...] = (),
        schedule: Multiplier | None = None,
        **slots: Any,
    ) -> Any:
        """The stack, without the networks that can't be used."""
        messages, found = Messages(cls.hidden.unique_id), list(stack)
        for number in range(1, SLOTS + 1):
            # Optional fields that an older workflow lacks have their usual values.
            multiplier = multiplier_of(slots.get(f"strength_{number}", 1.0), schedule)
            name = slots.get(f"name_{number}", NONE)
            found += resolve(name, multiplier, None, messages.tell)
        return io.NodeOutput(tuple(found), ui=messages.ui)
