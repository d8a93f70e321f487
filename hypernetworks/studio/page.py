"""The studio's page: the prompt and its networks on the left, what comes of them on the right, the cards below."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr

from ..errors import HypernetworkError
from ..ui.panel import panel
from .desk import Desk, InterruptedJobError, Update
from .generating import (
    MOST_PICTURES,
    MOST_STEPS,
    Outcome,
    empty_html,
    job_of,
    messages_html,
    paint,
    progress_html,
)
from .model_tab import model_tab, model_updates, samplers, status_html
from .restoring import Restored, read_infotext, restore
from .tabs import PRIVATE, compare_tab, inspect_tab
from .train.tab import train_tab
from .train.trainer import Trainer

MOST_KEPT = 40
"""Pictures of a window that its gallery shows."""
NOTHING_YET = "No picture yet. Write what you want to see, click a network below, and press Generate (Ctrl+Enter)."


@dataclass(frozen=True)
class _Components:
    """A record of components."""

    def all(self) -> list[gr.components.Component]:
        """Its components as gradio wants them."""
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(frozen=True)
class Inputs(_Components):
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


@dataclass(frozen=True)
class Outputs(_Components):
    """Where a job's progress and pictures are shown."""

    progress: gr.HTML
    gallery: gr.Gallery
    infotext: gr.Textbox
    messages: gr.HTML
    kept: gr.State


def build_page(trainer: Trainer, folder: Path, *, anywhere: bool = False) -> gr.Blocks:
    """The page, ready to be served.

    Args:
        trainer: on the desk that has the model and its jobs.
        folder: where pictures of this run are kept.
        anywhere: other machines can use it, too.
    """
    desk = trainer.desk
    with gr.Blocks(title="Hypernetworks studio", analytics_enabled=False) as page:
        status = gr.HTML(status_html(desk), elem_id="hypernetworks_status")
        with gr.Row(elem_id="studio_columns"):
            with gr.Column(scale=5, min_width=320):
                inputs, generate, interrupt, used = _left(desk)
            with gr.Column(scale=6, min_width=320), gr.Tabs(elem_id="studio_tabs"):
                outputs, restored = _picture_tab()
                compare_tab(desk, folder, inputs.all())
                inspect_tab(desk)
                of_training, look = train_tab(trainer)
                of_model = [status, inputs.cfg, inputs.sampler, inputs.width, inputs.height]
                of_tab, of_tab_values = model_tab(desk, anywhere=anywhere, on_change=of_model)
        gr.HTML('<div class="studio-cards" data-tab="hypernetworks"></div>', elem_id="studio_cards")
        _wire_generating(desk, folder, inputs, outputs, (generate, interrupt))
        _wire_fields(desk, inputs, outputs, restored, used)
        page.load(
            lambda: (*model_updates(desk), *of_tab_values()),
            None,
            [*of_model, *of_tab],
            queue=False,
            **PRIVATE,
        )
        page.load(look, None, of_training, queue=False, **PRIVATE)
    return page


def _left(desk: Desk) -> tuple[Inputs, gr.Button, gr.Button, tuple[gr.Button, gr.Button]]:
    prompt = gr.Textbox(
        label="Prompt",
        value="a strawberry on blue <hypernet:ink:0.8>" if desk.painter.is_miniature else "",
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
    panel("hypernetworks")
    negative = gr.Textbox(label="Negative prompt", lines=1, elem_id="hypernetworks_negative")
    inputs, used = _settings(desk, prompt, negative)
    return inputs, generate, interrupt, used


def _settings(
    desk: Desk, prompt: gr.Textbox, negative: gr.Textbox
) -> tuple[Inputs, tuple[gr.Button, gr.Button]]:
    painter = desk.painter
    size = {
        "precision": 0,
        "minimum": painter.size_step,
        "maximum": 4096,
        "step": painter.size_step,
        "min_width": 90,
    }
    with gr.Accordion("Settings", open=True, elem_id="studio_settings"):
        with gr.Row():
            steps = gr.Slider(
                1, MOST_STEPS, value=20, step=1, label="Steps", elem_id="hypernetworks_steps"
            )
            cfg = gr.Slider(
                1,
                20,
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
                samplers(desk),
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
            1, MOST_PICTURES, value=1, step=1, label="Pictures", elem_id="hypernetworks_batch"
        )
    return Inputs(prompt, negative, steps, cfg, seed, sampler, batch, width, height), (dice, reuse)


def _picture_tab() -> tuple[Outputs, gr.File]:
    with gr.Tab("Picture", id="picture", elem_id="studio_picture_tab"):
        progress = gr.HTML(empty_html(NOTHING_YET), elem_id="hypernetworks_progress")
        gallery = gr.Gallery(
            show_label=False,
            preview=True,
            object_fit="contain",
            columns=4,
            height=460,
            format="png",
            interactive=False,
            visible=False,
            buttons=["download", "fullscreen"],
            elem_id="hypernetworks_gallery",
        )
        messages = gr.HTML("", elem_id="hypernetworks_messages")
        infotext = gr.Textbox(
            label="Infotext",
            lines=3,
            elem_id="hypernetworks_infotext",
            interactive=False,
            buttons=["copy"],
        )
        restored = gr.File(
            label="Drop a PNG here: its prompt and settings come back",
            file_types=[".png"],
            height=130,
            elem_id="hypernetworks_restore",
        )
        kept = gr.State([])  # among the tabs themselves it would count as one
    return Outputs(progress, gallery, infotext, messages, kept), restored


def _wire_generating(
    desk: Desk, folder: Path, inputs: Inputs, outputs: Outputs, buttons: tuple[gr.Button, gr.Button]
) -> None:
    def generate(request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        *settings, kept = values
        yield (
            progress_html(Update(note="Starting …")),
            gr.update(visible=False),
            gr.skip(),
            "",
            gr.skip(),
        )
        try:
            job, picture = job_of(*settings), None
            for told in desk.run(
                str(request.session_hash), lambda p, tell, wish: paint(p, job, tell, wish, folder)
            ):
                if isinstance(told, Outcome):
                    yield _finished(told, kept)
                else:
                    picture = told.picture or picture
                    yield progress_html(replace(told, picture=picture)), *[gr.skip()] * 4
        except InterruptedJobError:
            yield _stopped(kept, messages_html(["interrupted before it began"]))
        except HypernetworkError as error:
            yield _stopped(kept, messages_html([str(error)], "error"))
        except Exception as error:  # memory, drivers: whatever torch may raise
            words = f"the picture could not be made ({type(error).__name__}: {error})"
            yield _stopped(
                kept,
                messages_html([words, "try a smaller size, or fewer pictures at once"], "error"),
            )

    start, stop = buttons
    gr.on(
        start.click,
        generate,
        [*inputs.all(), outputs.kept],
        outputs.all(),
        concurrency_limit=8,
        api_name="generate",
        show_progress="hidden",
    )

    def interrupt(request: gr.Request) -> None:
        desk.interrupt(str(request.session_hash))

    stop.click(interrupt, None, None, queue=False, **PRIVATE)


def _finished(outcome: Outcome, kept: list[tuple[str, str]]) -> tuple[Any, ...]:
    new = [(picture.path, picture.infotext) for picture in outcome.pictures]
    kept = [*new, *kept][:MOST_KEPT]
    count = "1 picture" if len(new) == 1 else f"{len(new)} pictures"
    done = f'<p class="studio-done" role="status">{count} in {outcome.seconds:.1f} s</p>'
    gallery = gr.update(value=[path for path, _ in kept], selected_index=0, visible=True)
    return done, gallery, new[0][1] if new else "", messages_html(outcome.messages), kept


def _stopped(kept: list[tuple[str, str]], messages: str) -> tuple[Any, ...]:
    """Without a new picture: what was there comes back."""
    place = "" if kept else empty_html(NOTHING_YET)
    return place, gr.update(visible=bool(kept)), gr.skip(), messages, gr.skip()


def _wire_fields(
    desk: Desk,
    inputs: Inputs,
    outputs: Outputs,
    restored: gr.File,
    used: tuple[gr.Button, gr.Button],
) -> None:
    def select(kept: list[tuple[str, str]], event: gr.SelectData) -> str:
        index = event.index if isinstance(event.index, int) else 0
        return kept[index][1] if 0 <= index < len(kept) else ""

    def reuse(infotext: str) -> Any:
        seed = restore(infotext, desk.library, desk.painter.model_name).seed if infotext else None
        return gr.skip() if seed is None else seed

    def bring_back(path: str | None) -> tuple[Any, ...]:
        if path is None:
            return tuple([gr.skip()] * 9)
        try:
            found = restore(read_infotext(Path(path)), desk.library, desk.painter.model_name)
        except HypernetworkError as error:
            return (messages_html([str(error)], "error"), *[gr.skip()] * 8)
        complete = "prompt and settings are those of the picture, press Generate to make it again"
        partial = "prompt and settings are those of the picture as far as this studio has them:"
        told = [partial, *found.messages] if found.messages else [complete]
        return messages_html(told), *_values(found)

    dice, again = used
    outputs.gallery.select(select, outputs.kept, outputs.infotext, queue=False, **PRIVATE)
    dice.click(lambda: -1, None, inputs.seed, queue=False, **PRIVATE)
    again.click(reuse, outputs.infotext, inputs.seed, queue=False, **PRIVATE)
    back = [inputs.prompt, inputs.negative, inputs.steps, inputs.cfg, inputs.seed, inputs.sampler]
    restored.upload(
        bring_back,
        restored,
        [outputs.messages, *back, inputs.width, inputs.height],
        queue=False,
        **PRIVATE,
    )


def _values(found: Restored) -> tuple[Any, ...]:
    """The fields' new values; what the picture doesn't say stays as it is."""
    values = [found.steps, found.cfg, found.seed, found.sampler, found.width, found.height]
    return (
        found.prompt,
        found.negative,
        *(gr.skip() if value is None else value for value in values),
    )
