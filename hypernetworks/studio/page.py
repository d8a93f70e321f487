"""The studio's page: networks, prompt and settings, and what comes of them, side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr

from .cards import choices
from .fields import Inputs, prompt_and_settings, starter
from .job_queue import JobQueue
from .models import samplers
from .tabs.axes import Axes, for_one_network, for_run, restored_axes
from .tabs.compare import compare_tab
from .tabs.convert import convert_tab
from .tabs.dropped import wire_drop
from .tabs.gallery import gallery_tab
from .tabs.inspect import inspect_tab
from .tabs.model import model_tab, model_updates, status_html
from .tabs.picture import Place, picture_tab, wire_fields, wire_generating
from .train.tab import train_tab
from .train.trainer import Trainer
from .widgets import PRIVATE, when_chosen
from .windows import restored_fields, saved_state

_STATIC = Path(__file__).parent / "static"
SAVED = (
    f"() => {{ {(_STATIC / 'studio_as_it_was.js').read_text(encoding='utf-8')}"
    "return [window.hypernetworksStudioBefore.saved]; }"
)
"""In the browser: what a page has saved of itself. It is here and not only among the scripts,
because those may come later, when the user may have changed what it would fill in.
"""
FILL = (_STATIC / "opening.js").read_text(encoding="utf-8")
"""In the browser: fills the fields of a page that opens, except those that were changed meanwhile.

The server can't do that: it does not know what is typed while its answer is on the way.
"""
OPENED = "() => { document.body.classList.add('studio-opened'); }"
"""In the browser: the mark of a page whose fields are filled. What changes them waits for it."""


def build_page(trainer: Trainer, place: Place, *, anywhere: bool = False) -> gr.Blocks:
    """The page, ready to be served.

    Args:
        trainer: with the job queue that has the model.
        place: where images go, and whose they are.
        anywhere: other machines can use it, too.
    """
    job_queue = trainer.job_queue
    with gr.Blocks(title="Hypernetworks studio", analytics_enabled=False) as page:
        with gr.Row(elem_id="studio_header"):
            status = gr.HTML(status_html(job_queue), elem_id="hypernetworks_status")
            gr.HTML('<div class="studio-pill" role="status"></div>', elem_id="studio_queue")
        with gr.Row(elem_id="studio_columns"):
            with gr.Column(scale=5, min_width=320, elem_id="studio_left"):
                inputs, generate, interrupt, used = prompt_and_settings(job_queue)
            with (
                gr.Column(scale=6, min_width=320, elem_id="studio_right"),
                gr.Tabs(elem_id="studio_tabs"),
            ):
                outputs, restored = picture_tab(job_queue)
                resume_sheet, of_sheet, axes = compare_tab(job_queue, place, inputs.all())
                inspected = inspect_tab(job_queue)
                converted = convert_tab(job_queue, place, anywhere)
                train_tab(trainer)
                of_model = [status, inputs.cfg, inputs.sampler, inputs.width, inputs.height]
                of_tab, of_tab_values, of_drop = model_tab(job_queue, place, anywhere, of_model)
                gallery_tab(place.images)
            gr.HTML(
                '<div class="studio-cards" data-tab="hypernetworks"></div>', elem_id="studio_cards"
            )
        resume = wire_generating(job_queue, place, inputs, outputs, (generate, interrupt))
        wire_fields(job_queue, place.windows, inputs, outputs, restored, used)

        saved = gr.Textbox(visible=False)  # for what the page's scripts send
        renew = gr.Button("Renew", elem_id="studio_renew", elem_classes="studio-hidden")
        _wire_choices(job_queue, saved, inputs, (inspected, converted), axes)
        wire_drop(place, anywhere, of_drop)
        fields = [*inputs.all(), *of_tab, *axes.fields]
        say = _opening(job_queue, place, of_tab_values, [field.value for field in fields])
        opened = _wire_opening(page, say, (saved, status), fields, axes.buttons)
        opened.then(resume, None, outputs.all(), concurrency_limit=32, **PRIVATE)
        opened.then(resume_sheet, None, of_sheet, concurrency_limit=32, **PRIVATE)
        renew.click(
            lambda: (*model_updates(job_queue), *of_tab_values()),
            None,
            [*of_model, *of_tab],
            queue=False,
            **PRIVATE,
        )

    return page


def _wire_opening(
    page: gr.Blocks,
    say: Callable[[gr.Request, str], tuple[str, str]],
    parts: tuple[gr.Textbox, gr.HTML],
    fields: list[gr.components.Component],
    buttons: list[gr.components.Component],
) -> Any:
    """Let a page that opens fill its fields, and mark it when that is done.

    Args:
        say: see :func:`_opening`.
        parts: the field that takes what the page has saved, and its header.
        buttons: which are shown or hidden, and hold nothing that a user could change.

    Returns:
        The event of the opening.
    """
    saved, status = parts
    given = gr.Textbox(elem_id="studio_given", elem_classes="studio-hidden")
    opened = page.load(say, saved, [status, given], js=SAVED, queue=False, **PRIVATE)

    filled = opened.then(None, [given, *fields], [*fields, *buttons], js=FILL, **PRIVATE)
    filled.then(None, None, None, js=OPENED, **PRIVATE)
    return opened


def _wire_choices(
    job_queue: JobQueue,
    chosen: gr.Textbox,
    inputs: Inputs,
    of_networks: tuple[gr.Dropdown, gr.Dropdown],
    axes: Axes,
) -> None:
    """Let the page's scripts fill the fields of all tabs but Train.

    Args:
        of_networks: the fields of the tabs that inspect and convert.
    """
    inspected, converted = of_networks

    def fields(text: str) -> tuple[Any, ...]:
        return _filled(job_queue, _restored(job_queue, text), keep=True)[1:]

    def network(name: str) -> Any:
        return gr.update(value=name, choices=list(choices(job_queue.library)))

    def networks(name: str) -> Any:
        return gr.update(value=[name], choices=list(choices(job_queue.library)))

    for name, function, outputs in (
        ("apply", fields, inputs.all()),
        ("inspect", network, [inspected]),
        ("convert", networks, [converted]),
        ("compare", for_one_network, axes.outputs),
        ("compare_run", for_run, axes.outputs),
    ):
        when_chosen(name, function, chosen, outputs)


def _opening(
    job_queue: JobQueue,
    place: Place,
    of_tab_values: Callable[[], tuple[Any, ...]],
    drawn: list[Any],
) -> Callable[[gr.Request, str], tuple[str, str]]:
    """The function that says what a page shows when it is opened or loaded again.

    Args:
        drawn: what the fields hold when gradio has drawn them: one that holds something else was
            changed by the user.
    """

    def opened(request: gr.Request, text: str) -> tuple[str, str]:
        state = saved_state(text)
        place.windows.open(str(request.session_hash), state.get("window"))
        saved = state.get("fields")
        of_axes = restored_axes(saved if isinstance(saved, dict) else {})
        status, *values = _filled(job_queue, _restored(job_queue, text)) + of_tab_values()
        updates = [_as_update(value) for value in (*values, *of_axes)]
        return status, json.dumps({"drawn": drawn, "updates": updates})

    return opened


def _as_update(value: Any) -> dict[str, Any]:
    """A new value of a field as gradio's page reads it: it does not pass gradio's server."""
    update = value if isinstance(value, dict) else gr.update(value=value)
    if "choices" in update:  # pairs of a label and a value, there
        update = {**update, "choices": [[choice, choice] for choice in update["choices"]]}
    return update


def _restored(job_queue: JobQueue, text: str) -> dict[str, str | float]:
    """Usable values of the fields that a page has saved."""
    model = job_queue.painter.model_name
    return restored_fields(saved_state(text), model, samplers(job_queue))


def _filled(
    job_queue: JobQueue, values: dict[str, str | float], *, keep: bool = False
) -> tuple[Any, ...]:
    """The header, and the fields in their order: as they were, as the model wants them, or as in a
    new window.

    Args:
        keep: fields without a value stay as they are.
    """
    if keep:
        names = Inputs.__dataclass_fields__
        return (gr.skip(), *(values.get(name, gr.skip()) for name in names))

    status, cfg, sampler, width, height = model_updates(job_queue)
    of_model: dict[str, Any] = {"sampler": sampler, "width": width, "height": height}
    defaults: dict[str, Any] = {"prompt": starter(job_queue), "cfg": cfg, **of_model}

    found = [status]
    for name in Inputs.__dataclass_fields__:
        value = values.get(name)
        if isinstance(defaults.get(name), dict):  # an update, which says the limits, too
            found.append({**defaults[name], **({} if value is None else {"value": value})})
        elif value is not None:
            found.append(value)
        else:
            found.append(defaults.get(name, gr.skip()))
    return tuple(found)
