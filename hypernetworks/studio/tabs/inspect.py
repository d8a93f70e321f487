"""The tab that tells what is in a file."""

from __future__ import annotations

import gradio as gr

from ...errors import HypernetworkError
from ..cards import choices
from ..inspecting import report
from ..job_queue import JobQueue
from ..widgets import PRIVATE, empty_html, messages_html

INSPECT_HINT = "Choose a network to see what its file contains."


def inspect_tab(job_queue: JobQueue) -> gr.Dropdown:
    """Add the tab that tells what is in a file.

    Returns:
        The field with the network.
    """
    with gr.Tab("Inspect", id="inspect", elem_id="studio_inspect_tab") as tab:
        name = gr.Dropdown(
            choices(job_queue.library), value=None, label="Network", elem_id="inspect_name"
        )
        found = gr.HTML(empty_html(INSPECT_HINT), elem_id="inspect_report")

    def show(chosen: str | None) -> str:
        if not chosen:
            return empty_html(INSPECT_HINT)
        try:
            return report(chosen, job_queue.library)
        except HypernetworkError as error:
            return messages_html([str(error)], "error")

    tab.select(
        lambda: gr.update(choices=choices(job_queue.library)), None, name, queue=False, **PRIVATE
    )
    name.change(
        show, name, found, api_visibility="private", show_progress="minimal", concurrency_limit=2
    )
    return name
