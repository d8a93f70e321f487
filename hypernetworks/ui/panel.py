"""The accordion under the prompt: a place for rows that ``javascript/hypernetworks.js`` fills and
keeps in step.
"""

from __future__ import annotations

from html import escape

import gradio as gr

_UNTIL_FILLED = "The networks in the prompt appear here. If this text stays, reload the page."


def panel(tab: str, *, opened: bool = True, check: str = "") -> None:
    """Add the accordion "Hypernetworks" to the Blocks that are being built.

    Runs under gradio 3.41 to 6.

    Args:
        tab: whose prompt it is about: the one in the element with the id ``{tab}_prompt``.
        opened: whether it starts unfolded. A folded one unfolds when the prompt gets its first tag.
        check: address that tells what is wrong with the networks in the prompt, for the loaded
            model; empty where there is none.
    """
    # Not f"{tab}_hypernetworks": that id belongs to the tab with the cards in AUTOMATIC1111 and its
    # kin.
    with gr.Accordion("Hypernetworks", open=opened, elem_id=f"{tab}_hypernetworks_accordion"):
        gr.HTML(
            f'<div class="hypernetworks-panel" data-tab="{escape(tab)}" data-check="{escape(check)}">'
            f"{_UNTIL_FILLED}</div>",
            elem_id=f"{tab}_hypernetworks_panel",
        )
