"""The tab that generates images and restores their settings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ...errors import HypernetworkError
from ..checkpoints import Checkpoints
from ..comparing.sheets import Sheets
from ..fields import Components, Inputs
from ..generating import Outcome, job_of
from ..generating import generate as generate_images
from ..images import Images
from ..job_queue import InterruptedJobError, JobQueue, Update
from ..restoring import Restored, read_infotext, restore
from ..widgets import PRIVATE, first_screen_html, messages_html, progress_html
from ..windows import Windows

if TYPE_CHECKING:
    from ...hosts.diffusers import Painter

IMAGE = "an image"
"""The kind of these jobs to the queue."""
PATIENCE = 20.0
"""Seconds that a job goes on after its page has gone: it may only be loaded again."""


RESTORED = (
    *("prompt", "negative", "steps", "cfg", "seed", "sampler", "width", "height"),
    *("hires", "hires_scale", "hires_strength", "upscaler", "strength"),
)
"""Fields that an image's infotext fills."""


@dataclass(frozen=True)
class Outputs(Components):
    """Where a job's progress and images are shown."""

    progress: gr.HTML
    gallery: gr.Gallery
    infotext: gr.Textbox
    messages: gr.HTML


@dataclass(frozen=True)
class Place:
    """Where the images of all windows go.

    Attributes:
        folder: of this run of the studio.
        images: the user's own folder.
        sheets: of the Compare tab.
        runs: the folder of training runs.
        checkpoints: that the Model tab offers.
    """

    folder: Path
    images: Images
    windows: Windows
    sheets: Sheets
    runs: Path
    checkpoints: Checkpoints


def picture_tab(job_queue: JobQueue) -> tuple[Outputs, gr.File]:
    """Add the tab with the image, its infotext, and the place to drop one."""
    with gr.Tab("Image", id="picture", elem_id="studio_picture_tab"):
        # Gallery and live preview share one place (studio.css), so that nothing jumps.
        with gr.Column(elem_id="studio_stage"):
            gallery = gr.Gallery(
                show_label=False,
                preview=True,
                object_fit="contain",
                columns=4,
                format="png",
                interactive=False,
                visible=False,
                buttons=["download", "fullscreen"],
                elem_id="hypernetworks_gallery",
            )
            progress = gr.HTML(
                first_screen_html(is_miniature=job_queue.painter.is_miniature),
                elem_id="hypernetworks_progress",
            )
        messages = gr.HTML("", elem_id="hypernetworks_messages")
        infotext = gr.Textbox(
            label="Infotext",
            lines=3,
            elem_id="hypernetworks_infotext",
            interactive=False,
            visible=False,
            buttons=["copy"],
        )
        gr.Button("Restore settings from an image …", size="sm", elem_id="studio_restore")
        restored = gr.File(  # not seen: that button, and an image dropped anywhere, fill it
            label="Image with settings",
            file_types=[".png", ".jpg", ".jpeg", ".webp", ".avif"],
            elem_id="hypernetworks_restore",
        )

    return Outputs(progress, gallery, infotext, messages), restored


def wire_generating(
    job_queue: JobQueue,
    place: Place,
    inputs: Inputs,
    outputs: Outputs,
    buttons: tuple[gr.Button, gr.Button],
) -> Callable[[gr.Request], Iterator[tuple[Any, ...]]]:
    """Let the two buttons start and interrupt a generation.

    Returns:
        The function that shows a window's jobs, and its images, when its page is loaded again.
    """

    def generate(request: gr.Request, *settings: Any) -> Iterator[tuple[Any, ...]]:
        window = place.windows.of(request.session_hash)
        if not job_queue.has(window, IMAGE):
            yield progress_html(Update(note="Starting …")), gr.skip(), gr.skip(), ""

        def work(
            painter: Painter, tell: Callable[[Update], None], cancelled: threading.Event
        ) -> Outcome:
            outcome = generate_images(
                painter, job_of(*settings), tell, cancelled, place.folder, place.images
            )
            place.windows.keep(window, outcome.pictures)
            return outcome

        running = job_queue.run(window, work, IMAGE, PATIENCE)
        yield from _shown(running, place, window, job_queue)

    def resume(request: gr.Request) -> Iterator[tuple[Any, ...]]:
        window = place.windows.of(request.session_hash)
        with job_queue.resume(window, IMAGE) as jobs:
            yield _again(place, window, job_queue)
            for number, running in enumerate(jobs):
                yield from _shown(running, place, window, job_queue, is_further=number > 0)

    start, stop = buttons
    gr.on(
        start.click,
        generate,
        inputs.all(),
        outputs.all(),
        concurrency_limit=8,
        api_name="generate",
        show_progress="hidden",
        trigger_mode="multiple",  # a click while a job runs waits for its turn
    )

    def interrupt(request: gr.Request) -> None:
        job_queue.interrupt(place.windows.of(request.session_hash))

    stop.click(interrupt, None, None, queue=False, **PRIVATE)
    return resume


def _shown(
    running: Iterator[Any],
    place: Place,
    window: str,
    job_queue: JobQueue,
    is_further: bool = False,
) -> Iterator[tuple[Any, ...]]:
    """A job's progress, and what came of it.

    Args:
        is_further: another job is shown already; an interrupt of both is said there.
    """
    picture = None
    try:
        for told in running:
            if isinstance(told, Outcome):
                yield _finished(told, place, window)
            elif not told.is_second:  # the job before it has the display
                picture = told.picture or picture
                yield progress_html(replace(told, picture=picture)), *[gr.skip()] * 3
    except InterruptedJobError:
        note = messages_html(["interrupted before it started"])
        if not is_further:
            yield _stopped(place, window, job_queue, note)
    except HypernetworkError as error:
        yield _stopped(place, window, job_queue, messages_html([str(error)], "error"))
    except Exception as error:  # memory, drivers: whatever torch may raise
        words = f"the image could not be generated ({type(error).__name__}: {error})"
        advice = messages_html([words, "try a smaller size, or fewer images at once"], "error")
        yield _stopped(place, window, job_queue, advice)


def _finished(outcome: Outcome, place: Place, window: str) -> tuple[Any, ...]:
    new, kept = outcome.pictures, place.windows.kept(window)
    count = "1 image" if len(new) == 1 else f"{len(new)} images"
    done = f'<p class="studio-done" role="status">{count} in {outcome.seconds:.1f} s</p>'
    gallery = gr.update(value=[one.path for one in kept], selected_index=0, visible=True)
    infotext = gr.update(value=new[0].infotext if new else "", visible=bool(new))
    return done, gallery, infotext, messages_html(outcome.messages)


def _stopped(place: Place, window: str, job_queue: JobQueue, messages: str) -> tuple[Any, ...]:
    """Without a new image, show the earlier ones again."""
    return _place_holder(place, window, job_queue), gr.skip(), gr.skip(), messages


def _place_holder(place: Place, window: str, job_queue: JobQueue) -> str:
    if place.windows.kept(window):
        return '<p class="studio-done"></p>'
    return first_screen_html(is_miniature=job_queue.painter.is_miniature)


def _again(place: Place, window: str, job_queue: JobQueue) -> tuple[Any, ...]:
    """What a window had before its page was loaded again.

    The messages stay: an image that was dropped meanwhile may have been answered there.
    """
    kept = place.windows.kept(window)
    gallery = gr.update(
        value=[one.path for one in kept] or None, selected_index=0, visible=bool(kept)
    )
    infotext = gr.update(value=kept[0].infotext if kept else "", visible=bool(kept))
    return _place_holder(place, window, job_queue), gallery, infotext, gr.skip()


def wire_fields(
    job_queue: JobQueue,
    windows: Windows,
    inputs: Inputs,
    outputs: Outputs,
    restored: gr.File,
    used: tuple[gr.Button, gr.Button],
) -> None:
    """Let the seed's buttons, the gallery and a dropped image fill the fields."""

    def select(request: gr.Request, event: gr.SelectData) -> str:
        kept = windows.kept(windows.of(request.session_hash))
        index = event.index if isinstance(event.index, int) else 0
        return kept[index].infotext if 0 <= index < len(kept) else ""

    def reuse(infotext: str) -> Any:
        seed = (
            restore(infotext, job_queue.library, job_queue.painter.model_name).seed
            if infotext
            else None
        )
        return gr.skip() if seed is None else seed

    def bring_back(path: str | None) -> tuple[Any, ...]:
        if path is None:
            return tuple([gr.skip()] * (len(RESTORED) + 1))
        try:
            found = restore(
                read_infotext(Path(path)), job_queue.library, job_queue.painter.model_name
            )
        except HypernetworkError as error:
            return (messages_html([str(error)], "error"), *[gr.skip()] * len(RESTORED))
        complete = "prompt and settings are restored. Press Generate to generate the image again"
        partial = "prompt and settings are restored, as far as this studio supports them:"
        told = [partial, *found.messages] if found.messages else [complete]
        return messages_html(told), *_values(found)

    dice, again = used
    outputs.gallery.select(select, None, outputs.infotext, queue=False, **PRIVATE)
    dice.click(lambda: -1, None, inputs.seed, queue=False, **PRIVATE)
    again.click(reuse, outputs.infotext, inputs.seed, queue=False, **PRIVATE)
    back = [getattr(inputs, name) for name in RESTORED]
    restored.upload(
        bring_back,
        restored,
        [outputs.messages, *back],
        queue=False,
        **PRIVATE,
    )


def _values(found: Restored) -> tuple[Any, ...]:
    """The fields' new values; what the image doesn't state stays as it is."""
    values = [getattr(found, name) for name in RESTORED]
    return tuple(gr.skip() if value is None else value for value in values)
