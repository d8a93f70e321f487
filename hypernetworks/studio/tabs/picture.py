"""The tab that generates images and restores their settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from ...errors import HypernetworkError
from ..fields import Components, Inputs
from ..generating import Outcome, job_of
from ..generating import generate as generate_images
from ..job_queue import InterruptedJobError, JobQueue, Update
from ..restoring import Restored, read_infotext, restore
from ..widgets import PRIVATE, empty_html, messages_html, progress_html

MOST_KEPT = 40
"""The most images that a window's gallery shows."""
NOTHING_YET = "No image yet. Describe what you want to see, click a network below, and press Generate (Ctrl+Enter)."


@dataclass(frozen=True)
class Outputs(Components):
    """Where a job's progress and images are shown."""

    progress: gr.HTML
    gallery: gr.Gallery
    infotext: gr.Textbox
    messages: gr.HTML
    kept: gr.State


def picture_tab() -> tuple[Outputs, gr.File]:
    """Add the tab with the image, its infotext, and the place to drop one."""
    with gr.Tab("Image", id="picture", elem_id="studio_picture_tab"):
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
            label="Drop an image here to restore its prompt and settings",
            file_types=[".png", ".jpg", ".jpeg", ".webp", ".avif"],
            height=130,
            elem_id="hypernetworks_restore",
        )
        kept = gr.State([])  # among the tabs themselves it would count as one

    return Outputs(progress, gallery, infotext, messages, kept), restored


def wire_generating(
    job_queue: JobQueue,
    folder: Path,
    inputs: Inputs,
    outputs: Outputs,
    buttons: tuple[gr.Button, gr.Button],
) -> None:
    """Let the two buttons start and interrupt a generation."""

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
            for told in job_queue.run(
                str(request.session_hash),
                lambda p, tell, cancelled: generate_images(p, job, tell, cancelled, folder),
            ):
                if isinstance(told, Outcome):
                    yield _finished(told, kept)
                else:
                    picture = told.picture or picture
                    yield progress_html(replace(told, picture=picture)), *[gr.skip()] * 4
        except InterruptedJobError:
            yield _stopped(kept, messages_html(["interrupted before it started"]))
        except HypernetworkError as error:
            yield _stopped(kept, messages_html([str(error)], "error"))
        except Exception as error:  # memory, drivers: whatever torch may raise
            words = f"the image could not be generated ({type(error).__name__}: {error})"
            yield _stopped(
                kept,
                messages_html([words, "try a smaller size, or fewer images at once"], "error"),
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
        job_queue.interrupt(str(request.session_hash))

    stop.click(interrupt, None, None, queue=False, **PRIVATE)


def _finished(outcome: Outcome, kept: list[tuple[str, str]]) -> tuple[Any, ...]:
    new = [(picture.path, picture.infotext) for picture in outcome.pictures]
    kept = [*new, *kept][:MOST_KEPT]
    count = "1 image" if len(new) == 1 else f"{len(new)} images"
    done = f'<p class="studio-done" role="status">{count} in {outcome.seconds:.1f} s</p>'
    gallery = gr.update(value=[path for path, _ in kept], selected_index=0, visible=True)
    return done, gallery, new[0][1] if new else "", messages_html(outcome.messages), kept


def _stopped(kept: list[tuple[str, str]], messages: str) -> tuple[Any, ...]:
    """Without a new image, show the earlier ones again."""
    place = "" if kept else empty_html(NOTHING_YET)
    return place, gr.update(visible=bool(kept)), gr.skip(), messages, gr.skip()


def wire_fields(
    job_queue: JobQueue,
    inputs: Inputs,
    outputs: Outputs,
    restored: gr.File,
    used: tuple[gr.Button, gr.Button],
) -> None:
    """Let the seed's buttons, the gallery and a dropped image fill the fields."""

    def select(kept: list[tuple[str, str]], event: gr.SelectData) -> str:
        index = event.index if isinstance(event.index, int) else 0
        return kept[index][1] if 0 <= index < len(kept) else ""

    def reuse(infotext: str) -> Any:
        seed = (
            restore(infotext, job_queue.library, job_queue.painter.model_name).seed
            if infotext
            else None
        )
        return gr.skip() if seed is None else seed

    def bring_back(path: str | None) -> tuple[Any, ...]:
        if path is None:
            return tuple([gr.skip()] * 9)
        try:
            found = restore(
                read_infotext(Path(path)), job_queue.library, job_queue.painter.model_name
            )
        except HypernetworkError as error:
            return (messages_html([str(error)], "error"), *[gr.skip()] * 8)
        complete = "prompt and settings are restored. Press Generate to generate the image again"
        partial = "prompt and settings are restored, as far as this studio supports them:"
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
    """The fields' new values; what the image doesn't state stays as it is."""
    values = [found.steps, found.cfg, found.seed, found.sampler, found.width, found.height]
    return (
        found.prompt,
        found.negative,
        *(gr.skip() if value is None else value for value in values),
    )
