"""The tab "Train hypernetwork" of a webui. Runs under gradio 3.41 to 6.

What is shown of a training is the page's own work: ``javascript/hypernetworks_train.js`` asks for
it, so that every window follows it and none takes a place in gradio's queue for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import gradio as gr

from ...errors import HypernetworkError
from ..html import messages_html
from .form import Form, Source
from .values import NEW, FormValues

PREFIX = "hypernetworks_train"
"""Begins the ids of all elements: AUTOMATIC1111's own tab has ids such as ``train_steps``."""
_QUIET: dict[str, Any] = {"show_progress": "hidden"}
_SIZED = ("begin_with", "layers", "activation", "layer_norm", "dropout", "self_attention")
"""Fields that the size of a network depends on."""


class Trainings(Protocol):
    """What the tab's buttons do."""

    @property
    def source(self) -> Source:
        """What the form asks."""

    def preset(self, purpose: str) -> Mapping[str, Any]:
        """The fields' values that a purpose begins with."""

    def refresh(self) -> None:
        """Look at the folders of networks again."""

    def begin(self, values: FormValues, files: Sequence[str]) -> str:
        """Start a training, or let it wait; returns what to tell.

        Args:
            files: images and captions that were sent.

        Raises:
            HypernetworkError: what is wrong.
        """


def add(trainings: Trainings) -> Any:
    """Add the tab to the Blocks that are being built; returns its outermost row."""
    form = Form(trainings.source)
    with gr.Row() as row:
        with gr.Column(scale=5, min_width=320):
            form.first()
            refresh = gr.Button("🔄 Refresh the lists", size="sm", elem_id=f"{PREFIX}_refresh")
            form.second()
            start = gr.Button("Train", variant="primary", elem_id=f"{PREFIX}_start")
            told = gr.HTML("", elem_id=f"{PREFIX}_told")
            form.more()
        with gr.Column(scale=6, min_width=320):
            gr.HTML('<div class="hypernetworks-training"></div>', elem_id=f"{PREFIX}_live")

        _wire_start(trainings, form, start, told)
        _wire_fields(trainings, form)
        _wire_lists(trainings, form, refresh, told)
    return row


def _wire_start(trainings: Trainings, form: Form, start: Any, told: Any) -> None:
    names = list(form.fields)

    def begin(files: Sequence[Any] | None, *values: Any) -> tuple[Any, ...]:
        entered = FormValues(**dict(zip(names, values, strict=True)))
        entered = replace(entered, key=form.key_of(entered.key or ""))
        # gradio 3 gives files, later versions their paths.
        sent = [str(getattr(file, "name", file)) for file in files or ()]
        try:
            said = trainings.begin(entered, sent)
        except HypernetworkError as error:
            return messages_html([str(error)], "error"), gr.update(), gr.update()
        folders = gr.update(choices=form.folder_choices())
        return messages_html([said]), folders, gr.update(value=None) if sent else gr.update()

    start.click(
        begin,
        [form.upload, *form.fields.values()],
        [told, form.fields["key"], form.upload],
        **_QUIET,
    )


def _wire_fields(trainings: Trainings, form: Form) -> None:
    """Fill in a purpose's values, and say how large the network will be."""
    of_purpose = [name for name in form.fields if name in trainings.preset("style")]
    purpose = form.fields["purpose"]

    def chosen(key: str) -> list[Any]:
        values = trainings.preset(key)
        return [gr.update(value=values[name]) for name in of_purpose]

    def size(*values: Any) -> str:
        return form.size_html(FormValues(**dict(zip(_SIZED, values, strict=True))))

    purpose.change(chosen, purpose, [form.fields[name] for name in of_purpose], **_QUIET)
    inputs = [form.fields[name] for name in _SIZED]
    for field in inputs:
        field.change(size, inputs, form.size, **_QUIET)


def _wire_lists(trainings: Trainings, form: Form, refresh: Any, told: Any) -> None:
    """Renew what can be chosen: gradio gives each new page what there was when the webui started.

    The page's script clicks the button when the tab comes into view and after a training.
    """

    def networks() -> Any:
        return gr.update(choices=[NEW, *form.source.networks()])

    def both() -> tuple[Any, Any]:
        trainings.refresh()
        return gr.update(choices=form.folder_choices()), networks()

    key, begin_with = form.fields["key"], form.fields["begin_with"]
    refresh.click(both, None, [key, begin_with], **_QUIET)
    told.change(networks, None, begin_with, **_QUIET)
