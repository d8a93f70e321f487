"""The tab that compares networks and multipliers on one sheet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from ...errors import HypernetworkError
from ...hosts.diffusers import save_png
from ..cards import choices
from ..comparing import compare, plan, summary
from ..generating import job_of, new_path
from ..job_queue import InterruptedJobError, JobQueue, Update
from ..widgets import PRIVATE, empty_html, messages_html, progress_html
from .picture import Place

COMPARE_HINT = (
    "Generates a labelled sheet from the prompt and settings on the left, all with the same seed."
)


def compare_tab(job_queue: JobQueue, place: Place, fields: list[gr.components.Component]) -> None:
    """Add the tab that makes sheets.

    Args:
        fields: the page's, as :func:`~hypernetworks.studio.generating.job_of` takes them.
    """
    with gr.Tab("Compare", id="compare", elem_id="studio_compare_tab") as tab:
        networks = gr.Dropdown(
            choices(job_queue.library),
            value=[],
            multiselect=True,
            label=(
                "Networks (one row each; empty: those in the prompt, or the first in the library)"
            ),
            elem_id="compare_networks",
        )
        multipliers = gr.Textbox(
            "0, 0.25, 0.5, 0.75, 1",
            label="Multipliers (one column each; schedules work too)",
            elem_id="compare_multipliers",
        )
        with gr.Row(elem_id="compare_buttons"):
            start = gr.Button("Compare", variant="primary", elem_id="compare_start", scale=3)
            stop = gr.Button("Interrupt", elem_id="compare_interrupt", scale=1, min_width=110)
        progress, sheet, messages = _results()
    tab.select(
        lambda: gr.update(choices=choices(job_queue.library)),
        None,
        networks,
        queue=False,
        **PRIVATE,
    )

    def run(
        request: gr.Request, names: list[str], values: str, *settings: Any
    ) -> Iterator[tuple[Any, ...]]:
        yield from _compare(
            job_queue,
            place.folder,
            place.windows.of(request.session_hash),
            (names or [], values or ""),
            settings,
        )

    gr.on(
        [start.click, multipliers.submit],
        run,
        [networks, multipliers, *fields],
        [progress, sheet, messages],
        concurrency_limit=8,
        **PRIVATE,
    )

    def interrupt(request: gr.Request) -> None:
        job_queue.interrupt(place.windows.of(request.session_hash))

    stop.click(interrupt, None, None, queue=False, **PRIVATE)


def _results() -> tuple[gr.HTML, gr.Image, gr.HTML]:
    """Where a comparison is shown."""
    progress = gr.HTML(empty_html(COMPARE_HINT), elem_id="compare_progress")
    sheet = gr.Image(
        show_label=False,
        type="filepath",
        interactive=False,
        visible=False,
        buttons=["download", "fullscreen"],
        elem_id="compare_sheet",
    )
    messages = gr.HTML("", elem_id="compare_messages")
    return progress, sheet, messages


def _compare(
    job_queue: JobQueue,
    folder: Path,
    window: str,
    choice: tuple[list[str], str],
    settings: tuple[Any, ...],
) -> Iterator[tuple[Any, ...]]:
    """What the tab shows while a sheet is made and when it is there."""
    yield progress_html(Update(note="Starting …")), gr.update(visible=False), ""
    picture = None
    try:
        job = job_of(*settings)
        todo = plan(job.prompt, *choice, job_queue.library)
        for told in job_queue.run(
            window,
            lambda p, tell, cancelled: compare(p, job, todo, tell, cancelled),
            "a comparison",
        ):
            if isinstance(told, Update):
                picture = told.picture or picture
                yield (
                    progress_html(Update(told.done, told.total, told.note, picture)),
                    gr.skip(),
                    gr.skip(),
                )
                continue
            if told.sheet is None:
                yield empty_html(COMPARE_HINT), gr.skip(), messages_html(told.messages)
                return
            path = new_path(folder, f"compare-seed-{job.seed}")
            save_png(told.sheet, path)
            done = f'<p class="studio-done" role="status">{summary(told)}</p>'
            yield done, gr.update(value=str(path), visible=True), messages_html(told.messages)
    except InterruptedJobError:
        yield empty_html(COMPARE_HINT), gr.skip(), messages_html(["interrupted before it started"])
    except HypernetworkError as error:
        yield empty_html(COMPARE_HINT), gr.skip(), messages_html([str(error)], "error")
    except Exception as error:  # memory, drivers: whatever torch may raise
        words = f"the sheet could not be generated ({type(error).__name__}: {error})"
        yield empty_html(COMPARE_HINT), gr.skip(), messages_html([words], "error")
