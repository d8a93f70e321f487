"""What several tabs show: progress, messages, hints, and text that stays text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..ui.html import data_url as data_url
from ..ui.html import empty_html as empty_html
from ..ui.html import messages_html as messages_html
from ..ui.html import text as text
from .job_queue import Update

CHOSEN = "() => [window.hypernetworksStudio.chosen]"
"""In the browser: what a script has chosen for the server."""
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def when_shown(tab: str, function: Callable[..., Any], inputs: Any, outputs: Any) -> None:
    """Renew what a tab offers when it is shown; a script clicks this hidden button (studio.js).

    gradio has an event for that, but works on it for a tenth of a second before the tab is seen.

    Args:
        tab: its name on the page, in small letters.
    """
    import gradio as gr

    button = gr.Button("Renew", elem_id=f"studio_shown_{tab}", elem_classes="studio-hidden")
    button.click(function, inputs, outputs, queue=False, **PRIVATE)


def when_chosen(name: str, function: Callable[..., Any], inputs: Any, outputs: Any) -> None:
    """Let the page's scripts fill fields: they say what was chosen, and click this hidden button.

    gradio's lists can't be filled from a script.

    Args:
        name: what is done, for the button's id ``studio_NAME``.
        function: gets what was chosen as text.
        inputs: a hidden text field, whose place the choice takes.
    """
    import gradio as gr

    button = gr.Button(name, elem_id=f"studio_{name}", elem_classes="studio-hidden")
    button.click(function, inputs, outputs, js=CHOSEN, queue=False, **PRIVATE)


def progress_html(update: Update) -> str:
    """The progress bar, its text, and the live preview if there is one."""
    known = f' max="{update.total}" value="{update.done}"' if update.total else ""
    picture = "<i></i>"
    if update.picture is not None:
        picture = f'<img alt="Live preview" src="{data_url(update.picture)}">'
    bar = f"<p>{text(update.note)}</p><progress{known}></progress>"
    return f'<div class="studio-progress">{picture}{bar}</div>'


EXAMPLES = (
    "a strawberry on blue <hypernet:ink:0.8>",
    "a rocket on red <hypernet:night:1>",
    "a penguin on yellow <hypernet:sepia:0.9>",
    "a star on green <hypernet:ink:0.6> <hypernet:sepia:0.5>",
)
"""Prompts to begin with; the first one stands in the prompt."""


def first_screen_html(*, is_miniature: bool) -> str:
    """What stands where the first image will be: what this is, and examples for the miniature."""
    what = "Hypernetworks change how a Stable Diffusion model draws: by a tag in the prompt."
    how = "Describe an image, click a network, and press Generate (Ctrl+Enter)."
    examples = ""

    # A checkpoint of the user's knows nothing of the networks that ship.
    if is_miniature:
        how = (
            "No image yet. Click an example, or describe an image and press Generate (Ctrl+Enter)."
        )
        examples = "".join(
            f'<li><button type="button" class="studio-example">{text(one)}</button></li>'
            for one in EXAMPLES
        )
        examples = f"<ul>{examples}</ul>"
    return f'<div class="studio-empty studio-first"><p>{what}</p><p>{how}</p>{examples}</div>'
