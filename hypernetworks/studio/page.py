"""The studio's page: the prompt and its networks on the left, what comes of them on the right, the
cards below.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr

from .fields import prompt_and_settings
from .tabs.compare import compare_tab
from .tabs.convert import convert_tab
from .tabs.inspect import inspect_tab
from .tabs.model import model_tab, model_updates, status_html
from .tabs.picture import picture_tab, wire_fields, wire_generating
from .train.tab import train_tab
from .train.trainer import Trainer
from .widgets import PRIVATE


def build_page(trainer: Trainer, folder: Path, *, anywhere: bool = False) -> gr.Blocks:
    """The page, ready to be served.

    Args:
        trainer: with the job queue that has the model.
        folder: where pictures of this run are kept.
        anywhere: other machines can use it, too.
    """
    job_queue = trainer.job_queue
    with gr.Blocks(title="Hypernetworks studio", analytics_enabled=False) as page:
        status = gr.HTML(status_html(job_queue), elem_id="hypernetworks_status")
        with gr.Row(elem_id="studio_columns"):
            with gr.Column(scale=5, min_width=320):
                inputs, generate, interrupt, used = prompt_and_settings(job_queue)
            with gr.Column(scale=6, min_width=320), gr.Tabs(elem_id="studio_tabs"):
                outputs, restored = picture_tab()
                compare_tab(job_queue, folder, inputs.all())
                inspect_tab(job_queue)
                convert_tab(job_queue, folder)
                of_training, look = train_tab(trainer)
                of_model = [status, inputs.cfg, inputs.sampler, inputs.width, inputs.height]
                of_tab, of_tab_values = model_tab(job_queue, anywhere=anywhere, on_change=of_model)
        gr.HTML('<div class="studio-cards" data-tab="hypernetworks"></div>', elem_id="studio_cards")
        wire_generating(job_queue, folder, inputs, outputs, (generate, interrupt))
        wire_fields(job_queue, inputs, outputs, restored, used)
        page.load(
            lambda: (*model_updates(job_queue), *of_tab_values()),
            None,
            [*of_model, *of_tab],
            queue=False,
            **PRIVATE,
        )
        page.load(look, None, of_training, queue=False, **PRIVATE)

    return page
