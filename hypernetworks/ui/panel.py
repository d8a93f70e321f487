"""The accordion below the prompt, which ``javascript/hypernetworks.js`` fills and updates."""

from __future__ import annotations

from html import escape

import gradio as gr

_UNTIL_FILLED = "The networks in the prompt appear here. If this text stays, reload the page."


def panel(tab: str, *, opened: bool = True, check: str = "") -> None:
    """Add the accordion "Hypernetworks" to the Blocks that are being built.

    Runs under gradio 3.41 to 6.

    Args:
        tab: the tab; its prompt is in the element with the id ``{tab}_prompt``.
        opened: whether it is open at first. A closed one opens when the prompt gets its first tag.
        check: address that says what is wrong with the networks in the prompt, for the loaded
            model; empty where there is none.
    """
    # Not f"{tab}_hypernetworks": AUTOMATIC1111 and its forks use that id for the cards' tab.
    with gr.Accordion("Hypernetworks", open=opened, elem_id=f"{tab}_hypernetworks_accordion"):
        gr.HTML(
            f'<div class="hypernetworks-panel" data-tab="{escape(tab)}" '
            f'data-check="{escape(check)}">'
            f"{_UNTIL_FILLED}</div>",
            elem_id=f"{tab}_hypernetworks_panel",
        )
