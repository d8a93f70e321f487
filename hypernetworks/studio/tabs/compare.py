"""The tab that compares: a sheet over up to three axes, and which blocks matter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ...errors import HypernetworkError
from ..comparing.axes import BLOCK_OFF, CHECKPOINT
from ..comparing.checkpoints import looking_in, steps_of
from ..comparing.drawing import heading
from ..comparing.planning import WITHOUT, Plan, plan
from ..comparing.ranking import notes, ranked
from ..comparing.sheets import Sheet
from ..comparing.working import Compared, compare, model_blocks, summary
from ..generating import job_of
from ..job_queue import InterruptedJobError, JobQueue, Update
from ..widgets import PRIVATE, empty_html, messages_html, progress_html
from .axes import NONE, Axes, axes_fields
from .picture import PATIENCE, Place

if TYPE_CHECKING:
    from ...hosts.diffusers import Painter

COMPARISON = "a comparison"
"""The kind of these jobs to the queue."""
COMPARE_HINT = (
    "Generates a sheet from the prompt and settings on the left: an image for each value of the "
    "axes, all else the same."
)


_Resume = Callable[[gr.Request], Iterator[tuple[Any, ...]]]


@dataclass(frozen=True)
class _Asked:
    """What the tab's fields say."""

    axes: tuple[tuple[str, str], ...]
    without: bool


def compare_tab(
    job_queue: JobQueue, place: Place, fields: list[gr.components.Component]
) -> tuple[_Resume, list[gr.components.Component], Axes]:
    """Add the tab that makes sheets.

    Args:
        fields: the page's, as :func:`~hypernetworks.studio.generating.job_of` takes them.

    Returns:
        The function that goes on to show a window's jobs when its page is loaded again, what it
            fills, and the axes.
    """
    with gr.Tab("Compare", id="compare", elem_id="studio_compare_tab"):
        axes, start, analyse, stop = _fields(job_queue)
        progress = gr.HTML(empty_html(COMPARE_HINT), elem_id="compare_progress")
        messages = gr.HTML("", elem_id="compare_messages")
        gr.HTML('<div class="studio-sheet"></div>', elem_id="compare_sheet")
    outputs: list[gr.components.Component] = [progress, messages]

    def run(request: gr.Request, *given: Any) -> Iterator[tuple[Any, ...]]:
        x, x_values, y, y_values, z, z_values, first, *settings = given
        pairs = ((x, x_values), (y, y_values), (z, z_values))
        kinds = tuple(("" if kind in (NONE, None) else kind, typed or "") for kind, typed in pairs)
        asked = _Asked(kinds, bool(first))
        yield from _started(job_queue, place, _window(place, request), asked, settings)

    def run_blocks(request: gr.Request, *settings: Any) -> Iterator[tuple[Any, ...]]:
        asked = _Asked(((BLOCK_OFF, ""), ("", ""), ("", "")), without=True)
        yield from _started(job_queue, place, _window(place, request), asked, settings)

    def resume(request: gr.Request) -> Iterator[tuple[Any, ...]]:
        with job_queue.resume(_window(place, request), COMPARISON) as jobs:
            yield gr.skip(), gr.skip()  # gradio would empty what a function without answers fills
            for number, running in enumerate(jobs):
                yield from _shown(running, is_further=number > 0)

    gr.on(
        [start.click, *axes.submits],
        run,
        [*axes.fields, *fields],
        outputs,
        concurrency_limit=8,
        **PRIVATE,
    )
    analyse.click(run_blocks, fields, outputs, concurrency_limit=8, **PRIVATE)
    stop.click(_interrupting(job_queue, place), None, None, queue=False, **PRIVATE)
    return resume, outputs, axes


def _interrupting(job_queue: JobQueue, place: Place) -> Callable[[gr.Request], None]:
    def interrupt(request: gr.Request) -> None:
        job_queue.interrupt(_window(place, request))

    return interrupt


def _window(place: Place, request: gr.Request) -> str:
    return place.windows.of(request.session_hash)


def _fields(job_queue: JobQueue) -> tuple[Axes, gr.Button, gr.Button, gr.Button]:
    """The axes and the buttons."""
    axes = axes_fields(job_queue)
    with gr.Row(elem_id="compare_buttons"):
        start = gr.Button("Compare", variant="primary", elem_id="compare_start", scale=3)
        analyse = gr.Button(
            "Which blocks matter?", elem_id="compare_blocks", scale=2, min_width=240
        )
        stop = gr.Button("Interrupt", elem_id="compare_interrupt", scale=1, min_width=110)
    return axes, start, analyse, stop


def _started(
    job_queue: JobQueue, place: Place, window: str, asked: _Asked, settings: Any
) -> Iterator[tuple[Any, ...]]:
    """Start a comparison, and show it."""
    yield progress_html(Update(note="Starting …")), ""
    try:
        job = job_of(*settings)
        axes, folders = list[tuple[str, str]](), list[Path]()
        for kind, typed in asked.axes:
            found = steps_of(typed, place.runs) if kind == CHECKPOINT else (typed, ())
            axes.append((kind, found[0]))
            folders += found[1]
        library = looking_in(job_queue.library, folders)
        blocks = model_blocks(job_queue.painter)
        todo = plan(job, axes, library, without=asked.without, blocks=blocks)
    except HypernetworkError as error:
        yield empty_html(COMPARE_HINT), messages_html([str(error)], "error")
        return

    def work(
        painter: Painter, tell: Callable[[Update], None], cancelled: threading.Event
    ) -> Compared:
        sheet = place.sheets.open(window, heading(job))

        # Jobs have the model to themselves: nobody else sees the saved steps of a run in it.
        own, painter.library = painter.library, library
        try:
            made = compare(
                painter,
                job,
                todo,
                tell,
                cancelled,
                on_plan=partial(setattr, sheet, "plan"),
                on_cells=sheet.add,
            )
            return _finish(sheet, made)
        finally:
            painter.library, sheet.is_running = own, False

    yield from _shown(job_queue.run(window, work, COMPARISON, PATIENCE))


def _finish(sheet: Sheet, made: Compared) -> Compared:
    """Sort the columns where they are blocks, and say which matter."""
    if made.plan is None:
        return made
    plan, pictures, changes = ranked(made.plan, made.pictures)
    sheet.finish(plan, pictures, notes(changes, WITHOUT))

    return Compared(plan, pictures, [*_told(plan, changes), *made.messages])


def _told(plan: Plan, changes: dict[str, float]) -> list[str]:
    """What the changes by blocks mean, in a line."""
    blocks = [label for label in plan.columns.values if label in changes]
    if not blocks:
        return []
    if not any(changes.values()):
        return ["the network has no effect here: its multiplier may be 0"]
    return [f"sorted by the change of the image without the block: {', '.join(blocks)}"]


def _shown(running: Iterator[Any], is_further: bool = False) -> Iterator[tuple[Any, ...]]:
    """What the tab says while a sheet is made; the sheet itself is filled in by its script.

    Args:
        is_further: another job is shown already; an interrupt of both is said there.
    """
    try:
        for told in running:
            if isinstance(told, Update):
                yield progress_html(Update(told.done, told.total, told.note)), gr.skip()
            elif told.pictures:
                done = f'<p class="studio-done" role="status">{summary(told)}</p>'
                yield done, messages_html(told.messages)
            else:
                yield empty_html(COMPARE_HINT), messages_html(told.messages)
    except InterruptedJobError:
        if not is_further:
            yield empty_html(COMPARE_HINT), messages_html(["interrupted before it started"])
    except HypernetworkError as error:
        yield empty_html(COMPARE_HINT), messages_html([str(error)], "error")
    except Exception as error:  # memory, drivers: whatever torch may raise
        words = f"the sheet could not be generated ({type(error).__name__}: {error})"
        yield empty_html(COMPARE_HINT), messages_html([words], "error")
