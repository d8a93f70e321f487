"""*Compare Hypernetworks*."""

from __future__ import annotations

import dataclasses
from typing import Any

import comfy.samplers
import nodes
from comfy_api.latest import io
from PIL import Image

from ....engine.multiplier import Multiplier
from ....errors import HypernetworkError
from ..drawing import as_image, pictures, sheet
from ..networks import Messages, checker
from ..sampling import Applied, with_networks
from . import fields

MOST_CELLS = 100


class CompareHypernetworks(io.ComfyNode):  # type: ignore[misc]
    """A labelled sheet: a row for each network, a column for each strength."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        sampler = comfy.samplers.KSampler
        inputs = [
            io.Model.Input("model"),
            fields.Stack.Input("stack"),
            io.Vae.Input("vae"),
            io.Conditioning.Input("positive"),
            io.Conditioning.Input("negative"),
            io.Latent.Input("latent_image"),
            io.String.Input(
                "strengths",
                default="0 0.5 1",
                tooltip="Numbers with blanks between. They replace the strengths of the stack.",
            ),
            io.Int.Input("seed", default=0, min=0, max=2**64 - 1, control_after_generate=True),
            io.Int.Input("steps", default=20, min=1, max=10000),
            io.Float.Input("cfg", default=7.0, min=0.0, max=100.0, step=0.1),
            io.Combo.Input("sampler_name", options=sampler.SAMPLERS),
            io.Combo.Input("scheduler", options=sampler.SCHEDULERS),
            io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01),
        ]

        return io.Schema(
            node_id="HypernetworkCompare",
            display_name="Compare Hypernetworks",
            category=fields.CATEGORY,
            description="Samples one seed with each network of a stack at several strengths, and "
            "joins the images to a labelled sheet.",
            inputs=inputs,
            outputs=[
                io.Image.Output(display_name="sheet"),
                io.Image.Output(display_name="images", tooltip="Row by row, without labels."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, strengths: str) -> bool | str:
        """What is wrong with the strengths, in words, before anything runs."""
        try:
            if strengths is not None and not _strengths(strengths):
                return "write at least one strength, such as 0 0.5 1"
        except HypernetworkError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls, model: Any, stack: tuple[Applied, ...], vae: Any, strengths: str, **how: Any
    ) -> Any:
        """Samples every cell with the same seed."""
        messages, check = Messages(cls.hidden.unique_id), checker(model)
        columns, rows = _strengths(strengths), list[Applied]()
        for applied in stack:
            try:
                check(applied.network, applied.multiplier)
                rows.append(applied)
            except HypernetworkError as error:
                messages.tell(f"{applied.network.name}: {error} (it is left out)")

        # Here an error is right: there is no image to generate without a network.
        if not rows:
            raise ValueError("there is no network to compare: choose one in Hypernetwork Stack")
        if len(rows) * len(columns) > MOST_CELLS:
            raise ValueError(
                f"the sheet would have {len(rows) * len(columns)} images: at most {MOST_CELLS}"
            )

        cells = [
            _cell(model, applied, strength, vae, how) for applied in rows for strength in columns
        ]
        drawn = sheet(cells, [a.network.name for a in rows], [str(c) for c in columns])
        return io.NodeOutput(as_image(drawn), as_image(*cells), ui=messages.ui)


def _strengths(text: str) -> list[Multiplier]:
    words = text.replace(";", " ").split()
    parts = [p for w in words for p in ([w] if "@" in w else w.split(",")) if p]
    return [Multiplier.parse(part) for part in parts]


def _cell(
    model: Any, applied: Applied, strength: Multiplier, vae: Any, how: dict[str, Any]
) -> Image.Image:
    # Blocks, attention and factors stay: the sheet compares strengths alone.
    multiplier = dataclasses.replace(applied.multiplier, strength=strength.strength)

    (latent,) = nodes.common_ksampler(
        with_networks(model, [Applied(applied.network, multiplier)]),
        how["seed"],
        how["steps"],
        how["cfg"],
        how["sampler_name"],
        how["scheduler"],
        how["positive"],
        how["negative"],
        how["latent_image"],
        denoise=how["denoise"],
    )
    return pictures(vae.decode(latent["samples"]))[0]
