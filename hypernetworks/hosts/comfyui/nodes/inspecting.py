"""*Inspect Hypernetwork*."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ....errors import HypernetworkError
from ....library import inspect
from ..drawing import as_image, page
from ..networks import Messages, find, load
from . import fields


class InspectHypernetwork(fields.OfOneFile):
    """What is in a file."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        return io.Schema(
            node_id="HypernetworkInspect",
            display_name="Inspect Hypernetwork",
            category=fields.CATEGORY,
            description="Shows the structure of a hypernetwork file, where it comes from, what is "
            "unusual in it, and the norms of its layers.",
            inputs=[fields.name_input()],
            outputs=[
                io.Image.Output(display_name="image"),
                io.String.Output(display_name="text"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, name: str) -> Any:
        """A page with a table and bars, and the table as text."""
        messages = Messages(cls.hidden.unique_id)
        # A bad file gives a page as well: what is connected to the node can go on.
        try:
            entry = find(name)
            seen = inspect(load(entry), entry.path)
        except HypernetworkError as error:
            messages.tell(f"{name}: {error}")
            return io.NodeOutput(
                as_image(page(name, [("error", str(error))], [])), str(error), ui=messages.ui
            )

        rows = [
            ("made for", seen.family),
            ("widths", ", ".join(map(str, seen.widths))),
            ("layer structure", ", ".join(f"{part:g}" for part in seen.layer_structure)),
            ("activation", seen.activation + (", output too" if seen.activate_output else "")),
            ("layer norm", "yes" if seen.layer_norm else "no"),
            ("dropout", ", ".join(f"{part:g}" for part in seen.dropout)),
            ("type", seen.dtype),
            ("parameters", f"{seen.parameters:,}"),
            ("steps", str(seen.provenance["step"])),
            *(("warning", warning) for warning in seen.warnings),
        ]
        bars = [(f"{n.width} {n.side}", n.norms) for n in seen.norms]
        text = "\n".join(f"{label}: {value}" for label, value in rows)
        return io.NodeOutput(as_image(page(name, rows, bars)), text, ui=messages.ui)
