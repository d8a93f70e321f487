"""*Hypernetworks from Prompt*."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ....engine.network import Hypernetwork
from ....library import Entry, Library
from ....prompts import parse
from ....prompts.near_misses import near_misses
from ...resolving import Resolver
from ..networks import Messages, checker, fingerprint, fingerprint_of_all, library, load
from ..sampling import Applied, with_networks
from . import fields


class HypernetworksFromPrompt(io.ComfyNode):  # type: ignore[misc]
    """Tags, as webuis have them."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        inputs = [
            io.Model.Input("model"),
            io.String.Input(
                "text",
                multiline=True,
                dynamic_prompts=True,
                tooltip="A prompt with tags such as <hypernet:ink:0@0,1@0.5:attn=cross>.",
            ),
        ]

        return io.Schema(
            node_id="HypernetworksFromPrompt",
            display_name="Hypernetworks from Prompt",
            category=fields.CATEGORY,
            description="Takes tags such as <hypernet:ink:0.8> out of a prompt and applies their "
            "networks to the model.",
            inputs=inputs,
            outputs=[
                io.Model.Output(display_name="model"),
                io.String.Output(display_name="text", tooltip="The prompt without its tags."),
                io.String.Output(display_name="messages", tooltip="One line per problem."),
                io.Model.Output(
                    display_name="hires_model",
                    tooltip=(
                        "For the second pass: uses the multipliers of hr=, where tags have them."
                    ),
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, text: str | None = None, **_: Any) -> str:
        """By the content of the files that the tags name."""
        if text is None:  # another node makes the text
            return fingerprint_of_all()
        return fingerprint(tag.name for tag in parse(text)[1])

    @classmethod
    def execute(cls, model: Any, text: str) -> Any:
        """The model with the networks, the clean text, messages, and the model for the hires
        pass.
        """
        messages = Messages(cls.hidden.unique_id)
        # LoRA tags stay in the text: another node of the graph may read them.
        clean, tags = parse(text)
        for line in near_misses(clean, loras=True):
            messages.tell(line)
        if not tags:
            return io.NodeOutput(model, clean, "\n".join(messages.lines), model, ui=messages.ui)

        library().scan()
        uses = Resolver(_Loading(library()), checker(model), messages.tell).uses(tags)
        found = [Applied(use.network, use.multiplier) for use in uses]
        first, hires = (
            with_networks(model, found, hires=hires) if found else model for hires in (False, True)
        )
        return io.NodeOutput(first, clean, "\n".join(messages.lines), hires, ui=messages.ui)


class _Loading(Library):
    """ComfyUI's library, with files read outside of inference mode."""

    def __init__(self, inner: Library) -> None:
        self.__dict__ = inner.__dict__

    def load(self, entry: Entry) -> Hypernetwork:
        return load(entry)
