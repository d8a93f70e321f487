"""The Train tab: what its buttons do, and how a window follows the training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from ...errors import HypernetworkError, TrainingDataError, TrainingSettingsError
from ...ui.training import views
from ...ui.training.form import Form, Source
from ...ui.training.runs import Runs, remembered
from ...ui.training.state import State
from ...ui.training.values import NEW, FormValues
from ..cards import choices
from ..widgets import PRIVATE, messages_html, when_chosen, when_shown
from . import example
from .form_values import job_of, of_preset, size_of
from .image_grid import ImageGrid
from .trainer import Trainer

PARTS = {
    "progress": "train_progress",
    "curves": "train_curves",
    "previews": "train_previews_shown",
    "messages": "train_messages",
}
"""What is shown of a training, and the element that shows it."""


def train_tab(trainer: Trainer) -> None:
    """Add the tab.

    What is shown of a training is the page's own work (studio.js asks for it): every window
    follows it, whenever it was opened, and none takes a place in gradio's queue for that.
    """
    form = Form(_source(trainer))
    with gr.Tab("Train", id="train", elem_id="studio_train_tab"):
        for part, element in PARTS.items():
            begin = views.progress(State()) if part == "progress" else ""
            gr.HTML(f'<div class="studio-live" data-part="{part}">{begin}</div>', elem_id=element)
        told = gr.HTML("", elem_id="train_told")  # to the window that pressed a button
        with gr.Row(elem_id="train_buttons"):
            example_button = gr.Button(example.BUTTON, elem_id="train_example", scale=3)
            stop = gr.Button("Interrupt", elem_id="train_interrupt", scale=1, min_width=110)
        form.first()
        grid = ImageGrid(form, lambda: trainer.job_queue.painter.size_step)
        form.second()
        start = gr.Button("Train", variant="primary", elem_id="train_start")
        form.more()
        gr.HTML('<div class="studio-runs"></div>', elem_id="train_runs")  # studio_training_runs.js
        model = gr.State(trainer.job_queue.painter.model_name)
        _wire_fields(trainer, form, model)
        _wire_again(trainer, form, told)

    grid.wire()
    _wire_buttons(trainer, form, grid, told, (start, stop, example_button))


def _source(trainer: Trainer) -> Source:
    """What the form asks of the studio."""
    queue = trainer.job_queue
    return Source(
        first=of_preset("style", queue.painter),
        previews=example.PROMPTS if queue.painter.is_miniature else "",
        folders=trainer.training_folders.choices,
        networks=lambda: choices(queue.library),
        size_of=lambda values: size_of(values, queue.painter),
        takes_paths=trainer.takes_paths,
    )


def _said(error: HypernetworkError, form: Form) -> str:
    """An error's text, with the label of the field that it is about."""
    if not isinstance(error, TrainingSettingsError) or error.setting not in form.fields:
        return str(error)
    return error.called(str(form.fields[error.setting].label))


def _wire_buttons(
    trainer: Trainer,
    form: Form,
    grid: ImageGrid,
    told: gr.HTML,
    buttons: tuple[gr.Button, gr.Button, gr.Button],
) -> None:
    start, stop, example_button = buttons
    names = list(form.fields)

    def train(files: list[str] | None, *given: Any) -> tuple[Any, ...]:
        values, of_grid = given[: len(names)], given[len(names) :]
        form_values = FormValues(**dict(zip(names, values, strict=True)))
        sent = [gr.skip()] * 3
        try:
            if files:
                with grid.kept(files, *of_grid) as kept:
                    form_values = replace(form_values, key=_kept(trainer, form_values, kept))
                sent[:2] = None, gr.update(choices=form.folders(), value=form_values.key)
            trainer.start(form_values)
            sent[2] = False  # begun: Train goes on with it from here on
        except HypernetworkError as error:
            return messages_html([_said(error, form)], "error"), *sent
        return "", *sent

    def train_example() -> str:
        values = of_preset("style", trainer.job_queue.painter)
        try:
            trainer.start(
                FormValues(
                    **{**values, **example.SETTINGS, "name": example.NAME, "key": example.KEY}
                )
            )
        except HypernetworkError as error:
            return messages_html([str(error)], "error")
        return ""

    start.click(
        train,
        [form.upload, *form.fields.values(), *grid.inputs],
        [told, form.upload, form.fields["key"], form.fields["start_over"]],
        concurrency_limit=8,
        **PRIVATE,
    )
    example_button.click(train_example, None, told, concurrency_limit=8, **PRIVATE)
    stop.click(lambda: (trainer.interrupt(), None)[1], None, None, queue=False, **PRIVATE)


def _kept(trainer: Trainer, form_values: FormValues, files: list[str]) -> str:
    """Save uploaded images once the other fields are valid; returns the key of their folder."""
    training_folders = trainer.training_folders
    if form_values.key or form_values.path.strip():
        raise TrainingDataError("choose a folder or add images, not both: set the folder to (none)")
    job_of(form_values, trainer.job_queue.painter, training_folders.pictures, training_folders.runs)
    return training_folders.key(training_folders.keep(files, form_values.name.strip()))


def _wire_fields(trainer: Trainer, form: Form, model: gr.State) -> None:
    job_queue, found = trainer.job_queue, form.fields
    of_purpose = [name for name in found if name in of_preset("style", job_queue.painter)]
    targets = [found[name] for name in of_purpose]

    def preset(purpose: str) -> list[Any]:
        values = of_preset(purpose, job_queue.painter)
        return [values[name] for name in of_purpose]

    def opened(known: str, purpose: str) -> tuple[Any, ...]:
        """Lists may have grown, and another model wants other numbers."""
        now = job_queue.painter.model_name
        begin = gr.update(choices=[NEW, *choices(job_queue.library)])
        changed = preset(purpose) if known != now else [gr.skip()] * len(of_purpose)
        return now, gr.update(choices=form.folders()), begin, *changed

    def size(*values: Any) -> str:
        return form.size_html(FormValues(**dict(zip(sized, values, strict=True))))

    purpose = found["purpose"]
    purpose.input(preset, purpose, targets, queue=False, **PRIVATE)
    lists = [model, found["key"], found["begin_with"]]
    when_shown("train", opened, [model, purpose], [*lists, *targets])
    sized = [name for name in found if name in _SIZED]
    inputs = [found[name] for name in sized]
    gr.on([field.change for field in inputs], size, inputs, form.size, queue=False, **PRIVATE)


def fields_of_run(trainer: Trainer, form: Form, name: str) -> dict[str, Any]:
    """The fields' values with which a run was begun, by name, as gradio takes them.

    Raises:
        HypernetworkError: there is no such run, or its fields are not known.
    """
    values = remembered(Runs(trainer.training_folders.runs).path(name))
    found: dict[str, Any] = {field: getattr(values, field) for field in form.fields}
    # What has gone since then can't be chosen.
    networks = (NEW, *choices(trainer.job_queue.library))
    lists = {"key": form.folders(), "begin_with": [(each, each) for each in networks]}
    for field, known in lists.items():
        is_there = any(found[field] == key for _, key in known)
        found[field] = gr.update(choices=known, value=found[field] if is_there else known[0][1])

    path = values.path if trainer.takes_paths else ""
    return found | {"name": name, "path": path, "start_over": False, "replace": False}


def _wire_again(trainer: Trainer, form: Form, told: gr.HTML) -> None:
    """Let the list of runs fill in the fields of one."""

    def again(name: str) -> tuple[Any, ...]:
        try:
            found = fields_of_run(trainer, form, name)
        except HypernetworkError as error:
            return messages_html([str(error)], "error"), *[gr.skip()] * len(form.fields)

        said = (
            f"These are the settings of {name}: change them, then press Train to go on with it. "
            "To begin a new run with them, change the name."
        )
        return messages_html([said]), *(found[field] for field in form.fields)

    when_chosen("again", again, gr.Textbox(visible=False), [told, *form.fields.values()])


_SIZED = {"begin_with", "layers", "activation", "layer_norm", "dropout", "self_attention"}
