"""The prompt and the settings on the left of the page."""

from __future__ import annotations

from dataclasses import dataclass, fields

import gradio as gr

from ..hosts.diffusers.passes import UPSCALERS
from ..ui.panel import panel
from .job_queue import JobQueue
from .models import samplers
from .ranges import RANGES
from .widgets import EXAMPLES


@dataclass(frozen=True)
class Components:
    """A record of components."""

    def all(self) -> list[gr.components.Component]:
        """Its components as gradio wants them."""
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(frozen=True)
class Inputs(Components):
    """The fields of one job, in the order of :func:`~hypernetworks.studio.generating.job_of`."""

    prompt: gr.Textbox
    negative: gr.Textbox
    steps: gr.Slider
    cfg: gr.Slider
    seed: gr.Number
    sampler: gr.Dropdown
    batch: gr.Slider
    width: gr.Number
    height: gr.Number
    hires: gr.Checkbox
    hires_scale: gr.Slider
    hires_strength: gr.Slider
    upscaler: gr.Dropdown
    strength: gr.Slider
    image: gr.File


def starter(job_queue: JobQueue) -> str:
    """The prompt of a new window."""
    return EXAMPLES[0] if job_queue.painter.is_miniature else ""


def prompt_and_settings(
    job_queue: JobQueue,
) -> tuple[Inputs, gr.Button, gr.Button, tuple[gr.Button, gr.Button]]:
    """The left column: prompt, panel, settings and buttons, in the Blocks that are being built."""
    prompt = gr.Textbox(
        label="Prompt",
        value=starter(job_queue),
        placeholder="What do you want to see?",
        lines=3,
        elem_id="hypernetworks_prompt",
    )
    with gr.Row(elem_id="studio_buttons"):
        generate = gr.Button(
            "Generate", variant="primary", elem_id="hypernetworks_generate", scale=3
        )
        interrupt = gr.Button(
            "Interrupt", elem_id="hypernetworks_interrupt", scale=1, min_width=110
        )

    gr.HTML('<div class="studio-prompts"></div>', elem_id="studio_prompts")
    panel("hypernetworks")
    negative = gr.Textbox(label="Negative prompt", lines=1, elem_id="hypernetworks_negative")
    inputs, used = _settings(job_queue, prompt, negative)

    return inputs, generate, interrupt, used


def _ends(name: str) -> tuple[float, float]:
    return RANGES[name].low, RANGES[name].high


def _settings(
    job_queue: JobQueue, prompt: gr.Textbox, negative: gr.Textbox
) -> tuple[Inputs, tuple[gr.Button, gr.Button]]:
    painter = job_queue.painter
    # No limits here: gradio's message about them does not say which field it is about.
    size = {"precision": 0, "step": painter.size_step, "min_width": 90}

    with gr.Accordion("Settings", open=True, elem_id="studio_settings"):
        with gr.Row():
            # Their sliders go as far as is usual (studio_sliders.js); more can be typed.
            steps = gr.Slider(
                *_ends("steps"), value=20, step=1, label="Steps", elem_id="hypernetworks_steps"
            )
            cfg = gr.Slider(
                *_ends("cfg"),
                value=painter.default_cfg,
                step=0.5,
                label="CFG scale",
                elem_id="hypernetworks_cfg",
            )
        with gr.Row(elem_id="studio_seed"):
            seed = gr.Number(
                value=0,
                precision=0,
                label="Seed (−1: random)",
                elem_id="hypernetworks_seed",
                scale=3,
            )
            dice = gr.Button(
                "Random", elem_id="hypernetworks_random", scale=1, min_width=80, size="sm"
            )
            reuse = gr.Button(
                "Reuse", elem_id="hypernetworks_reuse", scale=1, min_width=80, size="sm"
            )
        with gr.Row():
            sampler = gr.Dropdown(
                samplers(job_queue),
                value=painter.default_sampler,
                label="Sampler",
                elem_id="hypernetworks_sampler",
                min_width=140,
            )
            width = gr.Number(
                painter.default_size, label="Width", elem_id="hypernetworks_width", **size
            )
            height = gr.Number(
                painter.default_size, label="Height", elem_id="hypernetworks_height", **size
            )
        batch = gr.Slider(
            *_ends("batch"), value=1, step=1, label="Images", elem_id="hypernetworks_batch"
        )

    of_job = (prompt, negative, steps, cfg, seed, sampler, batch, width, height)
    return Inputs(*of_job, *_passes()), (dice, reuse)


def _passes() -> tuple[gr.Checkbox, gr.Slider, gr.Slider, gr.Dropdown, gr.Slider, gr.File]:
    """What comes before the first step, and after the last: folded, as most jobs need neither."""
    with gr.Accordion("Hires, image to image", open=False, elem_id="studio_passes"):
        hires = gr.Checkbox(
            False,
            label="Hires: enlarge the images in a second pass",
            elem_id="hypernetworks_hires",
        )

        with gr.Row():
            scale = gr.Slider(
                *_ends("hires_scale"),
                value=2,
                step=0.05,
                label="Scale",
                min_width=210,
                elem_id="hypernetworks_hires_scale",
            )
            hires_strength = gr.Slider(
                *_ends("hires_strength"),
                value=0.7,
                step=0.01,
                label="Hires strength",
                min_width=210,
                elem_id="hypernetworks_hires_strength",
            )
        upscaler = gr.Dropdown(
            list(UPSCALERS), value="Latent", label="Upscaler", elem_id="hypernetworks_upscaler"
        )

        # Not an Image: what that may hold is not known to payloads.py, and a preview needs none.
        image = gr.File(
            label="Begin with an image",
            file_types=[".png", ".jpg", ".jpeg", ".webp", ".avif"],
            height=110,
            elem_id="hypernetworks_image",
        )
        strength = gr.Slider(
            *_ends("strength"),
            value=0.75,
            step=0.01,
            label="Strength (how much of that image is changed)",
            elem_id="hypernetworks_strength",
        )
    return hires, scale, hires_strength, upscaler, strength, image
