"""The Train tab: what its buttons do, and how a window follows the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from ...errors import HypernetworkError, TrainingDataError, TrainingSettingsError
from ..cards import choices
from ..widgets import PRIVATE, messages_html
from . import example, views
from .form import Form
from .form_values import NEW, FormValues, job_of, of_preset
from .trainer import State, Trainer

Following = Iterator[tuple[Any, ...]]


def train_tab(
    trainer: Trainer,
) -> tuple[list[gr.components.Component], Callable[[], tuple[Any, ...]]]:
    """Add the tab.

    Returns:
        Where a training is shown, and the function that shows it: for a page that is opened
            meanwhile.
    """
    form = Form(trainer)
    with gr.Tab("Train", id="train", elem_id="studio_train_tab") as tab:
        progress = gr.HTML(views.progress(State()), elem_id="train_progress")
        curves = gr.HTML("", elem_id="train_curves")
        previews = gr.HTML("", elem_id="train_previews_shown")
        messages = gr.HTML("", elem_id="train_messages")
        told = gr.HTML(
            "", elem_id="train_told"
        )  # to this window alone, where the training's own words don't reach
        with gr.Row(elem_id="train_buttons"):
            example_button = gr.Button(example.BUTTON, elem_id="train_example", scale=3)
            stop = gr.Button("Interrupt", elem_id="train_interrupt", scale=1, min_width=110)
        form.first()
        start = gr.Button("Train", variant="primary", elem_id="train_start")
        form.more()
        model = gr.State(trainer.job_queue.painter.model_name)
    shown: list[gr.components.Component] = [progress, curves, previews, messages]

    followed = gr.State(-1)

    def look() -> tuple[Any, ...]:
        """As it is now.

        Nothing is queued where nothing runs: gradio may lose what is sent while another event ends.
        """
        state = trainer.state
        number = state.number if state.is_running else gr.skip()
        return (
            views.progress(state),
            views.curves(state),
            views.previews(state),
            _messages(state),
            number,
        )

    def follow() -> Following:
        yield from _follow(trainer)

    _wire_fields(trainer, form, tab, model)
    _wire_buttons(trainer, form, [*shown, told], (start, stop, example_button))
    followed.change(follow, None, shown, concurrency_limit=32, **PRIVATE)
    tab.select(look, None, [*shown, followed], queue=False, **PRIVATE)
    return [*shown, followed], look


def _follow(trainer: Trainer) -> Following:
    """What is shown, each time something of it changes."""
    before: list[Any] = [None] * 4
    known: list[Any] = [None] * 3
    for state in trainer.follow():
        now = [views.progress(state), *before[1:3], _messages(state)]
        seen = [state.number, len(state.rows), len(state.previews)]
        if seen[:2] != known[:2]:
            now[1] = views.curves(state)
        if seen != known:
            now[2] = views.previews(state)
        yield tuple(gr.skip() if new == old else new for new, old in zip(now, before, strict=True))
        before, known = now, seen


def _said(error: HypernetworkError, form: Form) -> str:
    """An error's text, with the label of the field that it is about."""
    if not isinstance(error, TrainingSettingsError) or error.setting not in form.fields:
        return str(error)
    return error.called(str(form.fields[error.setting].label))


def _messages(state: State) -> str:
    return messages_html(list(state.messages), "error" if state.is_wrong else "note")


def _wire_buttons(
    trainer: Trainer,
    form: Form,
    outputs: list[gr.components.Component],
    buttons: tuple[gr.Button, gr.Button, gr.Button],
) -> None:
    start, stop, example_button = buttons
    names = list(form.fields)

    def train(files: list[str] | None, *values: Any) -> Following:
        wishes = FormValues(**dict(zip(names, values, strict=True)))
        sent = [gr.skip()] * 3
        try:
            if files:
                wishes = replace(wishes, key=_kept(trainer, wishes, files))
                sent[:2] = None, gr.update(choices=form.folders(), value=wishes.key)
            trainer.start(wishes)
            sent[2] = False  # begun: Train goes on with it from here on
        except HypernetworkError as error:
            yield *[gr.skip()] * 4, messages_html([_said(error, form)], "error"), *sent
            return

        for update in _follow(trainer):
            yield *update, "", *sent
            sent = [gr.skip()] * 3

    def train_example() -> Following:
        values = of_preset("style", trainer.job_queue.painter)
        try:
            trainer.start(
                FormValues(
                    **{**values, **example.SETTINGS, "name": example.NAME, "key": example.KEY}
                )
            )
        except HypernetworkError as error:
            yield *[gr.skip()] * 4, messages_html([str(error)], "error")
            return
        for update in _follow(trainer):
            yield *update, ""

    start.click(
        train,
        [form.upload, *form.fields.values()],
        [*outputs, form.upload, form.fields["key"], form.fields["start_over"]],
        concurrency_limit=32,
        **PRIVATE,
    )
    example_button.click(train_example, None, outputs, concurrency_limit=32, **PRIVATE)
    stop.click(lambda: (trainer.interrupt(), None)[1], None, None, queue=False, **PRIVATE)


def _kept(trainer: Trainer, wishes: FormValues, files: list[str]) -> str:
    """Save uploaded images once the other fields are valid; returns the key of their folder."""
    training_folders = trainer.training_folders
    if wishes.key:
        raise TrainingDataError("choose a folder or add images, not both: set the folder to (none)")
    job_of(wishes, trainer.job_queue.painter, training_folders.pictures, training_folders.runs)
    return training_folders.key(training_folders.keep(files, wishes.name.strip()))


def _wire_fields(trainer: Trainer, form: Form, tab: gr.Tab, model: gr.State) -> None:
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
    tab.select(opened, [model, purpose], [*lists, *targets], queue=False, **PRIVATE)
    sized = [name for name in found if name in _SIZED]
    inputs = [found[name] for name in sized]
    gr.on([field.change for field in inputs], size, inputs, form.size, queue=False, **PRIVATE)


_SIZED = {"begin_with", "layers", "activation", "layer_norm", "dropout", "self_attention"}
