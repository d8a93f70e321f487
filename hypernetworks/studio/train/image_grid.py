"""The grid of dropped images: each as it will be cropped, with its caption, which can be edited."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr

from ...training.picture_settings import PictureSettings
from ...ui.html import text
from ...ui.training.form import Form
from ..widgets import PRIVATE
from .form_values import LARGEST_EDGE
from .sent_images import (
    MOST_CROPS,
    PER_PAGE,
    Sent,
    on_page,
    page_near,
    sent_images,
    thumbnail_html,
    to_keep,
    with_edits,
)

_SIZE = ("width", "height", "fit", "crops")
"""Fields of the form that decide how an image is cropped."""


class ImageGrid:
    """Adds the grid to the Blocks that are being built.

    The captions on the page are sent along with whatever needs them; an event for every letter
    that is typed would come too late, or in the wrong order.

    Attributes:
        inputs: what :meth:`kept` wants to know.

    Args:
        step: says what pixel sizes are multiples of, for the model that is loaded now.
    """

    def __init__(self, form: Form, step: Callable[[], int]) -> None:
        self._form, self._step = form, step
        self._images, self._page = gr.State([]), gr.State(0)
        self._cells: list[tuple[gr.Column, gr.HTML]] = []
        captions: list[gr.Textbox] = []
        ticks: list[gr.Checkbox] = []

        with gr.Column(visible=False, elem_id="train_sent") as self._whole:
            self._count = gr.HTML("", elem_id="train_sent_count")
            with gr.Row(elem_classes="studio-sent"):
                for number in range(PER_PAGE):
                    with gr.Column(visible=False, min_width=150) as cell:
                        self._cells.append((cell, gr.HTML("")))
                        captions.append(
                            gr.Textbox(
                                "",
                                label="Caption",
                                lines=2,
                                max_lines=4,
                                elem_id=f"train_caption_{number}",
                            )
                        )
                        ticks.append(
                            gr.Checkbox(
                                False, label="Leave out", elem_id=f"train_left_out_{number}"
                            )
                        )
            with gr.Row(visible=False, elem_id="train_sent_pages") as self._pages:
                self._back = gr.Button("‹ Previous", size="sm", elem_id="train_sent_back")
                self._next = gr.Button("Next ›", size="sm", elem_id="train_sent_next")

        self._edited = [*captions, *ticks]
        self.inputs = [self._images, self._page, *self._edited]

    def wire(self) -> None:
        """Let it follow the files that are sent, its own pages, and the size of the crops."""
        form, size = self._form, [self._form.fields[name] for name in _SIZE]
        outputs = [self._images, self._page, *self._shown_outputs()]

        def sent(files: list[str] | None, *given: Any) -> tuple[Any, ...]:
            *seen, width, height, fit, crops = given
            images = sent_images(files or [], with_edits(*seen))
            return images, 0, *self._shown(images, 0, (width, height, fit, crops))

        def turned(by: int, *given: Any) -> tuple[Any, ...]:
            *seen, width, height, fit, crops = given
            images, page = with_edits(*seen), page_near(len(seen[0]), seen[1] + by)
            return images, page, *self._shown(images, page, (width, height, fit, crops))

        def cropped(images: list[Sent], page: int, *of_size: Any) -> tuple[Any, ...]:
            settings = self._settings(of_size)
            found = [thumbnail_html(one.path, settings) for one in on_page(images, page)]
            return (*found, *[gr.skip()] * (PER_PAGE - len(found)))

        given = [*self.inputs, *size]
        form.upload.change(sent, [form.upload, *given], outputs, queue=False, **PRIVATE)
        for button, by in ((self._back, -1), (self._next, 1)):
            button.click(
                lambda *seen, by=by: turned(by, *seen), given, outputs, queue=False, **PRIVATE
            )
        gr.on(
            [field.change for field in size],
            cropped,
            [self._images, self._page, *size],
            [picture for _, picture in self._cells],
            queue=False,
            **PRIVATE,
        )

    @contextmanager
    def kept(self, files: Sequence[str], *seen: Any) -> Iterator[list[str]]:
        """The files to train on, as the grid has them; see :func:`~.sent_images.to_keep`."""
        # Files that the grid has not heard of yet are kept as they are.
        images = sent_images(files, with_edits(*seen))
        with to_keep(files, images) as found:
            yield found

    def _shown_outputs(self) -> list[Any]:
        cells = [cell for cell, _ in self._cells]
        pictures = [picture for _, picture in self._cells]
        return [self._whole, self._count, self._pages, *cells, *pictures, *self._edited]

    def _shown(self, images: Sequence[Sent], page: int, of_size: Sequence[Any]) -> tuple[Any, ...]:
        """A page, in the order of :meth:`_shown_outputs`."""
        shown, first = on_page(images, page), page * PER_PAGE
        settings, rest = self._settings(of_size), PER_PAGE - len(shown)
        cells = [gr.update(visible=number < len(shown)) for number in range(PER_PAGE)]
        pictures = [thumbnail_html(one.path, settings) for one in shown] + [""] * rest
        captions = [gr.update(value=one.caption, label=one.name) for one in shown]
        ticks = [one.is_left_out for one in shown] + [False] * rest

        whole, pages = gr.update(visible=bool(images)), gr.update(visible=len(images) > PER_PAGE)
        words = f"Images {first + 1} to {first + len(shown)} of {len(images)}, as they are cropped"
        count = f'<p class="studio-done" role="status">{text(words)}</p>'
        return (whole, count, pages, *cells, *pictures, *captions, *[""] * rest, *ticks)

    def _settings(self, of_size: Sequence[Any]) -> PictureSettings:
        """What the form says of the crops; the usual where it says something impossible."""
        (width, height, fit, crops), step = of_size, self._step()
        try:
            if max(width, height) > LARGEST_EDGE:
                raise ValueError
            shown = min(int(crops or 1), MOST_CROPS)  # each takes as much memory as the image
            return PictureSettings(int(width), int(height), fit, step=step, crops=shown)
        except (TypeError, ValueError):  # empty, or not possible: Train says so
            return PictureSettings(8 * step, 8 * step, step=step)
