"""The studio's page: prompt and settings in, picture with its infotext out."""

from __future__ import annotations

import os
import random
import threading
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr

from ..errors import HypernetworkError
from ..hosts.diffusers import Generation, Painter

FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
CSS = "#hypernetworks_picture img { width: 100% !important; height: 100% !important; object-fit: contain !important; }"
MONO = ["ui-monospace", "Menlo", "Consolas", "monospace"]


class Jobs:
    """Runs one job at a time on a painter, whichever window asks."""

    def __init__(self, painter: Painter) -> None:
        self.painter = painter
        self._lock = threading.Lock()

    def run(self, job: Generation, progress: Any) -> tuple[Any, str, str]:
        """Picture, infotext and messages of a job, with progress on the page."""
        with self._lock:
            result = self.painter.paint(job, lambda done, total: progress((done, total), unit="steps"))
        picture = result.pictures[0]
        return picture.image, picture.infotext, "\n".join(f"- {_escaped(m)}" for m in result.messages)


def _escaped(text: str) -> str:
    """Text of a user or a file, harmless in Markdown."""
    return "".join(f"&#{ord(c)};" if c in "<>&[]()*_`\\#!|~:" else c for c in text)


def build_page(painter: Painter) -> gr.Blocks:
    """The page, ready to launch."""
    jobs = Jobs(painter)

    def generate(
        prompt: str, negative: str, steps: float, cfg: float, seed: float, progress: Any = gr.Progress()  # noqa: B008
    ) -> tuple[Any, str, str]:
        chosen = random.randrange(2**32) if seed is None or seed < 0 else int(seed)
        job = Generation(prompt=prompt, negative=negative, steps=int(steps), cfg=float(cfg), seed=chosen)
        try:
            return jobs.run(job, progress)
        except HypernetworkError as error:
            return None, "", f"- {_escaped(str(error))}"

    with gr.Blocks(title="Hypernetworks studio", analytics_enabled=False) as page:
        gr.Markdown(f"# Hypernetworks\n{_welcome(painter)}")
        with gr.Row():
            with gr.Column():
                inputs = _inputs(painter)
                button = gr.Button("Generate", variant="primary", elem_id="hypernetworks_generate")
            with gr.Column():
                picture = gr.Image(
                    label="Picture",
                    format="png",
                    height=480,
                    buttons=["download", "fullscreen"],
                    interactive=False,
                    elem_id="hypernetworks_picture",
                )
                infotext = gr.Textbox(label="Infotext", lines=3, elem_id="hypernetworks_infotext", interactive=False)
                messages = gr.Markdown(elem_id="hypernetworks_messages")
        outputs = [picture, infotext, messages]
        gr.on([button.click, inputs[0].submit], generate, inputs, outputs, api_name="generate")
    return page


def _inputs(painter: Painter) -> list[gr.components.Component]:
    return [
        gr.Textbox(
            label="Prompt", value="a red apple on blue <hypernet:ink:0.8>", lines=2, elem_id="hypernetworks_prompt"
        ),
        gr.Textbox(label="Negative prompt", elem_id="hypernetworks_negative"),
        gr.Slider(1, 100, value=20, step=1, label="Steps", elem_id="hypernetworks_steps"),
        gr.Slider(1, 20, value=painter.default_cfg, step=0.5, label="CFG scale", elem_id="hypernetworks_cfg"),
        gr.Number(value=0, precision=0, label="Seed (-1: random)", elem_id="hypernetworks_seed"),
    ]


def _welcome(painter: Painter) -> str:
    names = ", ".join(f"`<hypernet:{_escaped(e.full_name)}:1>`" for e in painter.library.entries[:12])
    return f"Model: {_escaped(painter.model_name)}. Write a tag into the prompt: {names or 'no networks found'}."


def launch(painter: Painter, *, port: int, open_browser: bool) -> None:
    """Serve the page on this machine only, until interrupted.

    Raises:
        HypernetworkError: the port is taken.
    """
    page = build_page(painter)
    theme = gr.themes.Default(font=FONT, font_mono=MONO)
    print(f"Hypernetworks studio: http://127.0.0.1:{port}  (this machine only; Ctrl+C ends it)", flush=True)
    try:
        page.queue().launch(
            server_name="127.0.0.1",
            server_port=port,
            inbrowser=open_browser,
            share=False,
            theme=theme,
            css=CSS,
            footer_links=[],
            quiet=True,
        )
    except OSError as error:
        raise HypernetworkError(f"port {port} is taken: name another with --port") from error
