"""Fields for hypernetworks in a webui's card editor. Works with gradio 3.41 to 6.

gradio takes seconds to import, so this is left to the functions that need it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from ..engine.families import PUBLIC

FAMILIES = (*(family.label for family in PUBLIC), "Unknown")
"""Base models to choose from, by the names that LoRA cards use."""


class CardFields(NamedTuple):
    """The fields below the description: what a click adds to the prompt, and the user's notes."""

    activation_text: Any
    multiplier: Any
    notes: Any


def base_model() -> Any:
    """The choice of the model family."""
    import gradio as gr

    return gr.Dropdown(list(FAMILIES), value=FAMILIES[-1], label="Base model", interactive=True)


def card_fields() -> CardFields:
    """Add the fields to the Blocks that are being built."""
    import gradio as gr

    # 0 for "none", because a number field of gradio can't be empty in all versions.
    return CardFields(
        gr.Textbox(label="Activation text", info="Added to the prompt together with the tag"),
        gr.Number(label="Preferred multiplier", info="0: the default multiplier from the settings"),
        gr.Textbox(label="Notes", lines=4),
    )


def show() -> Any:
    """The update that makes the editor's box visible."""
    import gradio as gr

    return gr.update(visible=True)


def refuse(message: str) -> NoReturn:
    """End an event with an error message on the page."""
    import gradio as gr

    raise gr.Error(message)
