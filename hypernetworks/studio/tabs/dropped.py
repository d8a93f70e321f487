"""Checkpoints that are dropped on the page, which are opened where they are."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..checkpoints import how_to_open, name_and_size
from ..models import CHECKPOINT
from ..widgets import PRIVATE, messages_html
from .picture import Place


def wire_drop(place: Place, anywhere: bool, outputs: list[gr.components.Component]) -> None:
    """Load a checkpoint that was dropped on the page (studio_drop.js), if it is known where it is.

    Args:
        anywhere: the page is open to other machines.
        outputs: kind, choice, path and messages of the Model tab.
    """

    def dropped(said: str) -> tuple[Any, ...]:
        name, size = name_and_size(said)
        key = place.checkpoints.named(name, size, anywhere=anywhere)
        known = place.checkpoints.choices(anywhere=anywhere)
        chosen = gr.update(value=key, choices=known, visible=bool(known))
        message = f"{name} is chosen" if key else how_to_open(name, anywhere)
        path = gr.update(value="", visible=True)
        return CHECKPOINT, chosen, path, messages_html([message])

    said = gr.Textbox(visible=False)
    button = gr.Button("Open", elem_id="studio_open", elem_classes="studio-hidden")
    opened = button.click(
        dropped,
        said,
        outputs,
        js="() => [window.hypernetworksStudio.dropped]",
        queue=False,
        **PRIVATE,
    )
    opened.then(None, outputs[1], None, js=_LOAD, **PRIVATE)


_LOAD = "(key) => { window.hypernetworksStudio.openedCheckpoint(Boolean(key)); }"
