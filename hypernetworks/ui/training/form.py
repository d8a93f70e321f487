"""The fields of a form for training: a few in view, the rest folded away.

Runs under gradio 3.41 to 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ...engine.initialising import INITIALISATIONS
from ...engine.structure import ACTIVATIONS
from ...training import PRESETS
from ...training.gathering import SUFFIXES
from ...training.optimisers import optimiser_names
from ...training.picture_settings import FITS
from ...training.rates import SHAPES
from ...training.settings import CHECKPOINTINGS, MEMORY, PRECISIONS
from ...training.words import TEXT_SUFFIXES
from ..html import text
from .values import MOST_PREVIEWS, NEW, FormValues

NO_FOLDER = ("(none)", "")
HAS_LABELS = int(gr.__version__.partition(".")[0]) >= 4
"""Whether an entry of a drop-down list may have a label besides its value: not in gradio 3."""


@dataclass(frozen=True)
class Source:
    """What a form asks of the page that it is on.

    Attributes:
        first: the fields' first values, by name.
        previews: prompts for previews, one per line.
        folders: lists folders of images, as (label, key).
        networks: lists networks to start from.
        size_of: says how large the network will be.
        size_info: explains the fields with the images' size.
        takes_paths: a folder of images may be typed as a path.
        prefix: begins the ids of the fields; no other element of the page has one that begins so.
    """

    first: Mapping[str, Any]
    previews: str
    folders: Callable[[], list[tuple[str, str]]]
    networks: Callable[[], Sequence[str]]
    size_of: Callable[[FormValues], str]
    size_info: str = ""
    takes_paths: bool = False
    prefix: str = "train"


class Form:
    """Adds the fields to the Blocks that are being built.

    Attributes:
        fields: by their names in :class:`~.form_values.FormValues`.
        upload: pictures that are sent.
        size: says how large the network will be.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.fields: dict[str, Any] = {}

    def first(self) -> None:
        """Name, purpose, and the images."""
        with gr.Row():
            self._text("name", "Name", placeholder="the name to use in tags", min_width=140)
            purposes = [
                (preset.label.partition(":")[0].capitalize(), key)
                for key, preset in PRESETS.items()
            ]
            self.fields["purpose"] = gr.Radio(
                purposes,
                value="style",
                label="Purpose",
                elem_id=self.id_of("purpose"),
                min_width=230,
                scale=2,
            )

        self.fields["key"] = gr.Dropdown(
            self.folder_choices(),
            value="",
            label="Folder of images",
            info="An image's caption is its file name, or a text file of the same name beside it.",
            elem_id=self.id_of("key"),
            filterable=False,  # typed text would look like a folder, and mean none
        )
        self._text(
            "path",
            "Or the path of a folder on this machine",
            placeholder="for example /pictures/my cat",
            visible=self.source.takes_paths,
        )
        self.upload = gr.File(
            label="Or drop images and captions (.txt, .caption) here",
            file_count="multiple",
            file_types=[*SUFFIXES, *TEXT_SUFFIXES],
            height=120,
            elem_id=self.id_of("upload"),
        )

    def second(self) -> None:
        """The others in view; a page may put something of its own between the two parts."""
        with gr.Row():
            self._number("steps", "Steps", min_width=90)
            self._text("rate", "Learning rate", min_width=110)
            self._number("preview_every", "Preview every … steps", min_width=120)

        self._text(
            "previews",
            f"Preview prompts (one per line, at most {MOST_PREVIEWS})",
            value=self.source.previews,
            lines=2,
        )
        self.size = gr.HTML(
            self.size_html(FormValues(**self.source.first)), elem_id=self.id_of("size")
        )

    def more(self) -> None:
        """The others, by what they are about."""
        with gr.Accordion("More settings", open=False, elem_id=self.id_of("more")):
            self._tick("start_over", "Start over: delete an earlier run of this name")
            self._tick("replace", "Replace a network of this name")
            for title, add in (
                ("Network", self._network),
                ("Learning", self._learning),
                ("Images", self._pictures),
                ("Files", self._files),
            ):
                with gr.Accordion(title, open=False):
                    add()
        self.fields = {name: self.fields[name] for name in FormValues.__dataclass_fields__}

    def id_of(self, name: str) -> str:
        """The id of a field's element."""
        return f"{self.source.prefix}_{name}"

    def folders(self) -> list[tuple[str, str]]:
        """Folders of images to choose from."""
        return [NO_FOLDER, *self.source.folders()]

    def folder_choices(self) -> list[Any]:
        """The same as this gradio takes them."""
        return self.folders() if HAS_LABELS else [label for label, _ in self.folders()]

    def key_of(self, chosen: str) -> str:
        """The key of what was chosen: gradio 3 sends its label."""
        return chosen if HAS_LABELS else dict(self.folders()).get(chosen, chosen)

    def size_html(self, values: FormValues) -> str:
        """How large the network will be."""
        return f'<p class="studio-done">{text(self.source.size_of(values))}</p>'

    def _network(self) -> None:
        with gr.Row():
            self._choice("begin_with", "Start from", [NEW, *self.source.networks()])
            self._text("layers", "Layer structure")
            self._choice("activation", "Activation", sorted(ACTIVATIONS))
            self._choice("initialisation", "Initialisation", INITIALISATIONS)
            self._number("dropout", "Dropout", "between the layers, 0 to 1", whole=False)
        self._tick("layer_norm", "Layer norm")
        self._tick("zero_last", "Last layer starts at zero: no effect at step 0")
        self._tick("self_attention", "Also for self-attention, not only cross-attention")

    def _learning(self) -> None:
        with gr.Row():
            self._number("batch", "Batch", "images per pass")
            self._number("accumulation", "Accumulation", "passes per step")
            self._choice("shape", "Learning rate schedule", SHAPES)
            self._number("warm_up", "Warm-up", "steps")
            self._number("restarts", "Restarts", "of the decay")
            self._choice("optimiser", "Optimiser", optimiser_names())
            self._number("weight_decay", "Weight decay", whole=False)
            self._choice("precision", "Precision", PRECISIONS)
            self._choice("memory", "Memory", MEMORY, "how the UNet is kept while training")
            self._choice("checkpointing", "Gradient checkpointing", CHECKPOINTINGS)
            self._number("clip", "Gradient clipping", "0: no limit", whole=False)
            self._number("min_snr", "Min-SNR gamma", "0: off; 5 is usual", whole=False)
            self._number("noise_offset", "Noise offset", "0: off", whole=False)
            self._number("ema", "Average (EMA)", "0: off; for example 0.99", whole=False)
            self._number("caption_dropout", "Empty captions", "share, 0 to 1", whole=False)
            self._number("seed", "Seed")

    def _pictures(self) -> None:
        with gr.Row():
            self._number("width", "Width", self.source.size_info)
            self._number("height", "Height", self.source.size_info)
            self._choice("fit", "Shapes", FITS, "cropped to one size, or buckets by aspect ratio")
            self._number("crops", "Crops per image")
            self._text(
                "template",
                "Caption",
                info="[filewords]: the image's caption, [name]: the network's name",
            )
            self._number("tag_dropout", "Tag dropout", "share, 0 to 1", whole=False)
            self._number(
                "validation", "Validation", "share, if there are 8 images or more", whole=False
            )

        self._tick("flip", "Also train on mirrored images")
        self._tick("alpha", "Ignore transparent areas")
        self._tick("shuffle", "Shuffle tags")

    def _files(self) -> None:
        with gr.Row():
            self._number("save_every", "Save every … steps")
            self._number("keep", "Keep the newest …", "0: all")
            self._number("watch_every", "Validation loss every … steps")
            self._choice("file_suffix", "Format", (".safetensors", ".pt"))

    def _value(self, name: str) -> Any:
        return self.source.first.get(name, getattr(FormValues, name))

    def _number(
        self, name: str, label: str, info: str = "", *, whole: bool = True, min_width: int = 130
    ) -> None:
        self.fields[name] = gr.Number(
            self._value(name),
            label=label,
            info=info or None,
            precision=0 if whole else None,
            elem_id=self.id_of(name),
            min_width=min_width,
        )

    def _text(self, name: str, label: str, **options: Any) -> None:
        value = options.pop("value", self._value(name))
        options.setdefault("min_width", 200)
        self.fields[name] = gr.Textbox(value, label=label, elem_id=self.id_of(name), **options)

    def _choice(self, name: str, label: str, known: Iterable[str], info: str = "") -> None:
        self.fields[name] = gr.Dropdown(
            list(known),
            value=self._value(name),
            label=label,
            info=info or None,
            elem_id=self.id_of(name),
            min_width=205,
        )

    def _tick(self, name: str, label: str) -> None:
        self.fields[name] = gr.Checkbox(self._value(name), label=label, elem_id=self.id_of(name))
