"""Inputs that several nodes have."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ....engine.multiplier import BLOCK_PRESETS
from ..networks import fingerprint, names

CATEGORY = "hypernetworks"
Stack = io.Custom("HYPERNETWORK_STACK")
Schedule = io.Custom("HYPERNETWORK_SCHEDULE")

_PRESETS = [name for name in ("ALL", *BLOCK_PRESETS) if name != "NONE"]


class OfOneFile(io.ComfyNode):  # type: ignore[misc]
    """A node with one :func:`name_input`."""

    @classmethod
    def validate_inputs(cls, name: str) -> bool:
        """A missing file costs a message, not the queue."""
        # Without this method, ComfyUI refuses every name that its list has no more.
        return True

    @classmethod
    def fingerprint_inputs(cls, name: str | None = None, **_: Any) -> str:
        """By the file's content."""
        return fingerprint([name])


def name_input(field: str = "name", first: tuple[str, ...] = (), **options: Any) -> Any:
    """A list of the files in ``models/hypernetworks``."""
    return io.Combo.Input(
        field,
        options=[*first, *names()],
        tooltip="A file in models/hypernetworks: .pt, .bin, .ckpt, .pth or .safetensors.",
        **options,
    )


def strength_input(field: str = "strength", **options: Any) -> Any:
    """How strong a network is."""
    return io.Float.Input(
        field,
        default=1.0,
        min=-10.0,
        max=10.0,
        step=0.05,
        tooltip="0 switches it off. Negative values and values above 1 are allowed.",
        **options,
    )


def schedule_input() -> Any:
    """A curve from the schedule node."""
    return Schedule.Input(
        "schedule",
        optional=True,
        tooltip="From Hypernetwork Schedule: how the strength changes over the steps.",
    )


def refinements() -> list[Any]:
    """Where in the UNet a network acts."""
    return [
        io.Combo.Input(
            "blocks",
            options=list(dict.fromkeys(_PRESETS)),
            default="ALL",
            tooltip=(
                "The blocks of the UNet that it acts in. Ignored where block_factors is filled in."
            ),
        ),
        io.Combo.Input(
            "attention",
            options=["both", "cross", "self"],
            default="both",
            tooltip="cross: to the text only. self: within the image only.",
        ),
        io.Float.Input(
            "key", default=1.0, min=-10.0, max=10.0, step=0.05, tooltip="Factor for keys."
        ),
        io.Float.Input(
            "value", default=1.0, min=-10.0, max=10.0, step=0.05, tooltip="Factor for values."
        ),
        io.String.Input(
            "block_factors",
            default="",
            optional=True,
            tooltip="A number per block instead: 16 or 17 for SD1 and SD2, 11 or 12 for SDXL.",
        ),
    ]
