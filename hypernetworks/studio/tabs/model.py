"""The tab that chooses the model, and what the rest of the page takes from it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from ...console import pasted_path
from ...devices import name_of, usable_devices
from ...errors import HypernetworkError, sendable
from ...hosts.diffusers.checkpoints.loading import checkpoint_family
from ..job_queue import InterruptedJobError, JobQueue, Update
from ..models import CHECKPOINT, MINIATURE, checked_path, load, samplers
from ..widgets import PRIVATE, messages_html, progress_html, text, when_shown
from .picture import Place

_Components = list[gr.components.Component]


def model_tab(
    job_queue: JobQueue, place: Place, anywhere: bool, on_change: list[gr.components.Component]
) -> tuple[_Components, Callable[[], tuple[Any, ...]], _Components]:
    """Add the tab that chooses the model.

    Args:
        anywhere: the page is open to other machines, so that it takes no paths.
        on_change: status, CFG, sampler, width and height, in the order of :func:`model_updates`.

    Returns:
        Fields of the tab that say which model is loaded, what gives their values later, and what a
            checkpoint that is dropped on the page fills in.
    """
    with gr.Tab("Model", id="model", elem_id="studio_model_tab"):
        fields = _fields(job_queue, place, anywhere)
        kind, chosen, path = fields[:3]
        start = gr.Button("Load", variant="primary", elem_id="model_load")
        told = gr.HTML(messages_html([_memory_hint()]), elem_id="model_messages")
        _wire_choice(place, anywhere, kind, chosen, path)

    def run(
        request: gr.Request, which: str, key: str | None, typed: str, own: str, *settings: Any
    ) -> Iterator[tuple[Any, ...]]:
        same = [gr.skip()] * len(on_change)
        try:
            wanted = None if which == MINIATURE else chosen_checkpoint(place, key, typed, anywhere)
            of_vae = _vae_path(own, anywhere)

            def work(
                _painter: Any, tell: Callable[[Update], None], cancelled: threading.Event
            ) -> str:
                where, halved = settings
                return load(job_queue, wanted, where, halved, tell, cancelled, of_vae)

            window = place.windows.of(request.session_hash)
            for said in job_queue.run(window, work, "the loading of a model"):
                if isinstance(said, Update):
                    yield progress_html(said), *same
                    continue
                if wanted is not None and job_queue.painter.checkpoint == wanted:
                    place.checkpoints.remember(wanted)
                yield messages_html([said]), *model_updates(job_queue)
        except InterruptedJobError:
            yield messages_html(["interrupted before it started"]), *same
        except HypernetworkError as error:
            yield messages_html([str(error)], "error"), *same

    gr.on(
        [start.click, path.submit],
        run,
        list(fields),
        [told, *on_change],
        concurrency_limit=8,
        **PRIVATE,
    )

    return [kind, path], lambda: _shown(job_queue, anywhere), [kind, chosen, path, told]


def _shown(job_queue: JobQueue, anywhere: bool) -> tuple[Any, ...]:
    """The loaded model, in the fields that say which it is."""
    is_checkpoint = not job_queue.painter.is_miniature
    path = gr.update(value=_shown_path(job_queue, anywhere), visible=is_checkpoint)
    return _kind(job_queue), path


def _wire_choice(
    place: Place, anywhere: bool, kind: gr.Radio, chosen: gr.Dropdown, path: gr.Textbox
) -> None:
    """Show what belongs to the kind of model; what is chosen and what is typed exclude one
    another.
    """

    def show(which: str) -> tuple[Any, Any]:
        is_checkpoint = which == CHECKPOINT
        # Looked for when it is wanted: a folder on a network drive takes its time.
        known = place.checkpoints.choices(anywhere=anywhere) if is_checkpoint else []
        return gr.update(visible=bool(known), choices=known), gr.update(visible=is_checkpoint)

    kind.change(show, kind, [chosen, path], queue=False, **PRIVATE)
    when_shown("model", show, kind, [chosen, path])
    chosen.input(lambda: "", None, path, queue=False, **PRIVATE)
    path.input(lambda: None, None, chosen, queue=False, **PRIVATE)


_Fields = tuple[gr.Radio, gr.Dropdown, gr.Textbox, gr.Textbox, gr.Dropdown, gr.Checkbox]


def _fields(job_queue: JobQueue, place: Place, anywhere: bool) -> _Fields:
    here, now = usable_devices(), name_of(job_queue.painter.pipeline.device)
    kind = gr.Radio(
        [MINIATURE, CHECKPOINT], value=_kind(job_queue), label="Model", elem_id="model_kind"
    )
    # All keys that may come are checked when they come: the list is as of the last look.
    chosen = gr.Dropdown(
        place.checkpoints.choices(anywhere=anywhere),
        value=None,
        label="Checkpoint",
        elem_id="model_chosen",
        visible=False,
    )
    path = gr.Textbox(
        _shown_path(job_queue, anywhere),
        label="Path of a checkpoint on this machine",
        placeholder="for example /models/v1-5-pruned.safetensors, or a diffusers folder",
        info="SD1, SD2 or SDXL. Nothing is downloaded.",
        elem_id="model_path",
        visible=not job_queue.painter.is_miniature,
        interactive=not anywhere,
    )
    vae = gr.Textbox(
        "",
        label="Path of a VAE (empty: the model's own)",
        placeholder="for example /models/vae-ft-mse-840000.safetensors",
        elem_id="model_vae",
        visible=not anywhere,
    )

    with gr.Row():
        device = gr.Dropdown(
            list(dict.fromkeys([*here, now])), value=now, label="Device", elem_id="model_device"
        )
        half = gr.Checkbox(
            value=len(here) > 1, label="Half precision (not on the CPU)", interactive=len(here) > 1
        )

    return kind, chosen, path, vae, device, half


def _kind(job_queue: JobQueue) -> str:
    return MINIATURE if job_queue.painter.is_miniature else CHECKPOINT


def _shown_path(job_queue: JobQueue, anywhere: bool) -> str:
    """The loaded checkpoint; others than the user of this machine see its name alone."""
    path = job_queue.painter.checkpoint
    if path is None:
        return ""
    return sendable(path.name if anywhere else str(path))


def _memory_hint() -> str:
    return (
        "all windows of this studio share the model; the current one stays until the new one is "
        "loaded"
    )


def chosen_checkpoint(place: Place, key: str | None, typed: str, anywhere: bool) -> Path:
    """The checkpoint that was chosen, or else that was typed.

    Raises:
        HypernetworkError: it is none, or the page takes no paths.
    """
    if key:
        path = place.checkpoints.path(key, anywhere=anywhere)
        checkpoint_family(path)
        return path
    if anywhere:
        raise HypernetworkError(
            "with --listen, the page accepts no paths: start the studio with --checkpoint PATH or "
            "--checkpoints DIR instead"
        )
    return checked_path(typed or "")


def _vae_path(typed: str, anywhere: bool) -> Path | None:
    if not (typed or "").strip().strip("\"'"):
        return None
    if anywhere:
        raise HypernetworkError(
            "with --listen, the page accepts no paths: start the studio with --vae PATH instead"
        )
    return pasted_path(typed)


def model_updates(job_queue: JobQueue) -> tuple[Any, ...]:
    """Title, CFG, sampler, width and height as they suit the loaded model."""
    painter = job_queue.painter
    size = {"value": painter.default_size, "step": painter.size_step}
    return (
        status_html(job_queue),
        painter.default_cfg,
        gr.update(choices=samplers(job_queue), value=painter.default_sampler),
        gr.update(**size),
        gr.update(**size),
    )


def status_html(job_queue: JobQueue) -> str:
    """Title and model, in one line."""
    painter = job_queue.painter
    device = (
        f"{name_of(painter.pipeline.device).upper()}, {str(painter.dtype).removeprefix('torch.')}"
    )
    return (
        f"<h1>Hypernetworks</h1><p>Model: <b>{text(painter.model_name)}</b> on {text(device)}</p>"
    )
