"""The fields that say which file a network is extracted from: one that is sent, or one that is on
the studio's machine already.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ...console import pasted_path
from ...errors import CheckpointError
from ..checkpoints import name_and_size
from ..converting import EXTRACT, TUNED
from ..web.limits import LARGEST_FILE
from ..widgets import PRIVATE, messages_html
from .model import chosen_checkpoint
from .picture import Place

_SENT = f"up to {LARGEST_FILE >> 20} MiB"
EXTRACTED = {EXTRACT: f"LoRA ({_SENT})", TUNED: f"Fine-tuned checkpoint ({_SENT})"}
"""What the file is that a network is extracted from."""


@dataclass(frozen=True)
class Sources:
    """The three ways to name a file.

    Attributes:
        file: is sent to the studio, which takes no large ones.
        chosen: a checkpoint of the folders that the Model tab offers.
        typed: a path on the studio's machine.
    """

    file: gr.File
    chosen: gr.Dropdown
    typed: gr.Textbox

    def all(self) -> list[gr.components.Component]:
        """The fields, in the order of :func:`source_of`."""
        return [self.file, self.chosen, self.typed]


def source_fields(place: Place, anywhere: bool) -> Sources:
    """Add the fields, hidden until a network is to be extracted.

    Args:
        anywhere: the page is open to other machines, so that it takes no paths.
    """
    file = gr.File(
        label=EXTRACTED[EXTRACT],
        file_types=[".safetensors"],
        visible=False,
        elem_id="convert_lora",
    )
    # All keys that may come are checked when they come: the list is as of the last look.
    chosen = gr.Dropdown(
        place.checkpoints.choices(anywhere=anywhere),
        value=None,
        label="Or a checkpoint on this machine",
        visible=False,
        elem_id="convert_chosen",
    )
    typed = gr.Textbox(
        "",
        label="Or its path on this machine",
        placeholder="for example /models/tuned.safetensors",
        info="Of any size. Nothing is copied.",
        visible=False,
        elem_id="convert_path",
    )
    fields = Sources(file, chosen, typed)

    # What is named last counts.
    file.upload(lambda: (None, ""), None, [chosen, typed], queue=False, **PRIVATE)
    chosen.input(lambda: (None, ""), None, [file, typed], queue=False, **PRIVATE)
    typed.input(lambda: (None, None), None, [file, chosen], queue=False, **PRIVATE)
    return fields


def shown_sources(kind: str, place: Place, anywhere: bool) -> tuple[Any, ...]:
    """The fields' updates for a kind of conversion."""
    # Looked for when it is wanted: a folder on a network drive takes its time.
    known = place.checkpoints.choices(anywhere=anywhere) if kind == TUNED else []
    return (
        gr.update(visible=kind in EXTRACTED, label=EXTRACTED.get(kind, "")),
        gr.update(visible=bool(known), choices=known),
        gr.update(visible=kind in EXTRACTED and not anywhere),
    )


def source_of(
    kind: str, place: Place, anywhere: bool, file: str | None, key: str | None, typed: str | None
) -> Path | None:
    """The file that the fields name; ``None`` where they name none, or none is needed.

    Raises:
        HypernetworkError: it is none that this page may read, or no checkpoint.
    """
    if kind not in EXTRACTED:
        return None
    if file:
        return Path(file)
    chosen = key if kind == TUNED else None  # a LoRA is none of the checkpoints
    if not chosen and not (typed or "").strip().strip("\"'"):
        return None
    if kind == TUNED:
        return chosen_checkpoint(place, chosen, typed or "", anywhere)
    if anywhere:
        raise CheckpointError("with --listen, the page accepts no paths: drop the file instead")
    return pasted_path(typed or "")  # what reads a LoRA says what is wrong with it


def wire_large_files(
    place: Place, anywhere: bool, fields: Sources, messages: gr.HTML, kind: gr.Radio
) -> None:
    """Look for a file that is too large to be sent (studio_drop.js) on this machine."""

    def look(said: str, kind: str) -> tuple[Any, ...]:
        name, size = name_and_size(said)
        key = place.checkpoints.named(name, size, anywhere=anywhere) if kind == TUNED else None
        if key is not None:
            known = place.checkpoints.choices(anywhere=anywhere)
            chosen = gr.update(value=key, choices=known, visible=True)
            return chosen, None, "", messages_html([f"{name} is chosen"])
        return gr.skip(), gr.skip(), gr.skip(), messages_html([_too_large(name, anywhere)], "error")

    said = gr.Textbox(visible=False)
    button = gr.Button("Look", elem_id="studio_large", elem_classes="studio-hidden")
    button.click(
        look,
        [said, kind],
        [fields.chosen, fields.file, fields.typed, messages],
        js="(said, kind) => [window.hypernetworksStudio.dropped, kind]",
        queue=False,
        **PRIVATE,
    )


def _too_large(name: str, anywhere: bool) -> str:
    said = f"{name} is larger than {LARGEST_FILE >> 20} MiB, the most that can be sent"
    if anywhere:
        return f"{said}: start the studio with --checkpoints DIR to offer a folder of checkpoints"
    return f"{said}: paste its path into the field below the file instead"
