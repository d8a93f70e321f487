"""The part of a card's editor that converts a hypernetwork.

Runs under gradio 3.41 to 6.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr


class Converting(NamedTuple):
    """The button, and where its result is told."""

    button: Any
    told: Any


def converting() -> Converting:
    """Make them, in the Blocks that are being built."""
    with gr.Accordion("Convert to a LoRA for the checkpoint that is selected", open=False):
        return Converting(gr.Button("Convert…"), gr.HTML(""))
