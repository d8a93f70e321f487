"""*Hypernetwork Schedule*."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ....engine.multiplier import Multiplier, format_number
from ....errors import HypernetworkError
from . import fields


class HypernetworkSchedule(io.ComfyNode):  # type: ignore[misc]
    """How a strength changes over the steps."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        inputs = [
            io.String.Input(
                "points",
                default="0@0,1@1",
                tooltip="value@position pairs. Positions are fractions of the pass from 0 to "
                "1, or steps where one of them is above 1.",
            ),
            *(
                io.Float.Input(
                    field,
                    default=default,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The network is off outside of start and stop.",
                )
                for field, default in (("start", 0.0), ("stop", 1.0))
            ),
        ]

        return io.Schema(
            node_id="HypernetworkSchedule",
            display_name="Hypernetwork Schedule",
            category=fields.CATEGORY,
            description="A curve over the steps of a pass. The strength of the network it is "
            "connected to scales it.",
            inputs=inputs,
            outputs=[fields.Schedule.Output(display_name="schedule")],
        )

    @classmethod
    def _read(cls, points: str, start: float, stop: float) -> Multiplier:
        window = [f"start={format_number(start)}"] if start > 0 else []
        window += [f"stop={format_number(stop)}"] if stop < 1 else []
        return Multiplier.parse(":".join([points.strip(), *window]))

    @classmethod
    def validate_inputs(cls, points: str, start: float, stop: float) -> bool | str:
        """What is wrong with the points, in words, before anything runs."""
        try:
            # A field that is linked has no value yet.
            if points is not None and start is not None and stop is not None:
                cls._read(points, start, stop)
        except HypernetworkError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, points: str, start: float, stop: float) -> Any:
        """A multiplier with the schedule."""
        return io.NodeOutput(cls._read(points, start, stop))
