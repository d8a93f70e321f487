"""The tab that turns networks into LoRAs, baked checkpoints and other networks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from ...conversion.lora_files import FORMATS
from ...errors import HypernetworkError
from ...files.lines import lines_of
from ..cards import choices
from ..converting import BAKE, KINDS, LORA, SMALLER, Order, convert
from ..job_queue import InterruptedJobError, JobQueue, Update
from ..widgets import PRIVATE, empty_html, messages_html, progress_html, when_shown
from .picture import Place
from .sources import EXTRACTED, shown_sources, source_fields, source_of, wire_large_files

CONVERT_HINT = (
    "Writes a file for the model that is loaded. LoRAs and baked checkpoints are downloaded; "
    "networks are added to the library."
)


LOOK = "() => { window.hypernetworksStudio.reloadCards(); }"
"""In the browser: shows the card of a network that was added."""


def convert_tab(job_queue: JobQueue, place: Place, anywhere: bool) -> gr.Dropdown:
    """Add the tab that converts.

    Args:
        place: where the files of this run go, and whose they are.
        anywhere: the page is open to other machines, so that it takes no paths.

    Returns:
        The field of the networks that are converted.
    """
    with gr.Tab("Convert", id="convert", elem_id="studio_convert_tab"):
        kind = gr.Radio(KINDS, value=LORA, label="Make", elem_id="convert_kind")
        networks = gr.Dropdown(
            choices(job_queue.library),
            value=[],
            multiselect=True,
            label="Networks, in the order of application",
            elem_id="convert_networks",
        )
        when_shown("convert", lambda: gr.update(choices=choices(job_queue.library)), None, networks)
        with gr.Row():
            multipliers = gr.Textbox("1", label="Multipliers", elem_id="convert_multipliers")
            name = gr.Textbox("", label="Name of the new file", elem_id="convert_name")
        hidden = _hidden_field()
        sources = source_fields(place, anywhere)
        with gr.Column() as of_lora:
            options = _lora_fields()
        with gr.Row():
            start = gr.Button("Convert", variant="primary", elem_id="convert_start", scale=3)
            stop = gr.Button("Interrupt", elem_id="convert_interrupt", scale=1, min_width=110)
        outputs = _outputs()
        wire_large_files(place, anywhere, sources, outputs[-1], kind)

    def show(kind: str) -> tuple[Any, ...]:
        return *_shown(kind), *shown_sources(kind, place, anywhere)

    of_kind = [networks, multipliers, hidden, of_lora, *sources.all()]
    kind.change(show, kind, of_kind, queue=False, **PRIVATE)

    def run(request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        window = place.windows.of(request.session_hash)
        yield from _convert(job_queue, place, window, anywhere, values)

    start.click(
        run,
        [kind, name, networks, multipliers, *options, hidden, *sources.all()],
        list(outputs),
        concurrency_limit=8,
        **PRIVATE,
    ).then(None, None, None, js=LOOK, **PRIVATE)

    def interrupt(request: gr.Request) -> None:
        job_queue.interrupt(place.windows.of(request.session_hash))

    stop.click(interrupt, None, None, queue=False, **PRIVATE)
    return networks


def _hidden_field() -> gr.Number:
    """What only smaller networks need."""
    return gr.Number(
        0.1,
        minimum=1e-4,
        maximum=8,
        label="Hidden units, in multiples of the context width",
        visible=False,
        elem_id="convert_hidden",
    )


def _lora_fields() -> list[gr.components.Component]:
    """What only LoRAs need: layout, and how they are fitted."""
    layout = gr.Dropdown(list(FORMATS), value=FORMATS[0], label="Format", elem_id="convert_layout")
    return [
        layout,
        gr.Textbox(
            "",
            lines=4,
            label="Prompts, one per line (for networks that aren't linear)",
            placeholder="Such as those that you use the network with; empty for general ones",
            elem_id="convert_prompts",
        ),
        gr.Slider(
            0,
            10_000,
            1000,
            step=50,
            label="Training steps (for networks that aren't linear; 0 is quick and less exact)",
            elem_id="convert_steps",
        ),
    ]


def _outputs() -> tuple[gr.HTML, gr.File, gr.Image, gr.HTML]:
    """Progress, the new file, the measured images, and messages."""
    return (
        gr.HTML(empty_html(CONVERT_HINT), elem_id="convert_progress"),
        gr.File(label="The new file", visible=False, elem_id="convert_made"),
        gr.Image(
            label="Without the network, with it, and with the LoRA",
            type="filepath",
            interactive=False,
            visible=False,
            buttons=["download", "fullscreen"],
            elem_id="convert_sheet",
        ),
        gr.HTML("", elem_id="convert_messages"),
    )


def _shown(kind: str) -> tuple[Any, ...]:
    """Only the fields that this kind needs, but for those of its file."""
    is_extracted = kind in EXTRACTED
    return (
        gr.update(visible=not is_extracted),
        gr.update(visible=not is_extracted and kind != SMALLER),
        gr.update(visible=kind == SMALLER),
        gr.update(visible=kind == LORA),
    )


def order_of(
    kind: str,
    name: str,
    networks: list[str] | None,
    multipliers: str,
    layout: str,
    prompts: str,
    steps: float,
    source: Path | None,
    hidden: float | None = None,
) -> Order:
    """What the fields ask for."""
    # A name says what is in the file, unless the user has typed one.
    chosen = tuple(networks or ())
    ending = {BAKE: "-baked", SMALLER: "-small"}.get(kind, "")

    return Order(
        kind,
        name or "-".join(chosen[:3]) + ending,
        chosen,
        tuple(part for part in re.split(r"[\s,;]+", multipliers or "") if part),
        layout,
        tuple(lines_of(prompts or "")),
        int(steps or 0),
        source,
        float(hidden or 0),
    )


def _order(place: Place, anywhere: bool, values: tuple[Any, ...]) -> Order:
    """What the tab's fields ask for, with the file that they name."""
    *fields, hidden, file, key, typed = values
    source = source_of(values[0], place, anywhere, file, key, typed)
    return order_of(*(*fields, source, hidden))


def _convert(
    job_queue: JobQueue, place: Place, window: str, anywhere: bool, values: tuple[Any, ...]
) -> Iterator[tuple[Any, ...]]:
    """What the tab shows while it converts, and afterwards."""
    hidden = gr.update(visible=False)
    yield progress_html(Update(note="Starting …")), hidden, hidden, ""

    try:
        order, folder = _order(place, anywhere, values), place.folder
        for told in job_queue.run(
            window,
            lambda painter, tell, cancelled: convert(painter, order, folder, tell, cancelled),
            "a conversion",
        ):
            if isinstance(told, Update):
                yield progress_html(told), gr.skip(), gr.skip(), gr.skip()
                continue

            said = f'<p class="studio-done" role="status">{order.kind} written</p>'
            file = gr.update(value=str(told.path), visible=True)
            image = gr.update(value=str(told.sheet), visible=True) if told.sheet else hidden
            # gradio gives out files of this run's folder alone
            is_download = told.path.is_relative_to(folder)
            yield said, file if is_download else hidden, image, messages_html(told.messages)
    except InterruptedJobError:
        yield empty_html(CONVERT_HINT), hidden, hidden, messages_html(["interrupted"])
    except HypernetworkError as error:
        yield empty_html(CONVERT_HINT), hidden, hidden, messages_html([str(error)], "error")
    except Exception as error:  # memory, drivers: whatever torch may raise
        words = f"it could not be converted ({type(error).__name__}: {error})"
        yield empty_html(CONVERT_HINT), hidden, hidden, messages_html([words], "error")
