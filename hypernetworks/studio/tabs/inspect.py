"""The tab that tells what is in a file."""

from __future__ import annotations

import gradio as gr

from ...errors import HypernetworkError
from ..cards import choices
from ..inspecting import report
from ..job_queue import JobQueue
from ..widgets import empty_html, messages_html, when_shown

INSPECT_HINT = "Choose a network to see what its file contains."


def inspect_tab(job_queue: JobQueue) -> gr.Dropdown:
    """Add the tab that tells what is in a file.

    Returns:
        The field with the network.
    """
    with gr.Tab("Inspect", id="inspect", elem_id="studio_inspect_tab"):
        name = gr.Dropdown(
            choices(job_queue.library), value=None, label="Network", elem_id="inspect_name"
        )
        # Networks may have been added since: by a drop, a training, or a conversion.
        when_shown("inspect", lambda: gr.update(choices=choices(job_queue.library)), None, name)
        found = gr.HTML(empty_html(INSPECT_HINT), elem_id="inspect_report")

    def show(chosen: str | None) -> str:
        if not chosen:
            return empty_html(INSPECT_HINT)
        try:
            return report(chosen, job_queue.library)
        except HypernetworkError as error:
            return messages_html([str(error)], "error")

    name.change(
        show, name, found, api_visibility="private", show_progress="minimal", concurrency_limit=2
    )
    return name
