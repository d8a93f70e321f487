"""The tab with all images of the user's folder, which studio.js fills."""

from __future__ import annotations

import gradio as gr

from ..images import Images
from ..widgets import empty_html, text

HIDDEN = (
    "With --listen, the gallery shows nothing: others could see all of your images. They are saved "
    "in the folder of images of this machine."
)


def gallery_tab(images: Images) -> None:
    """Add the tab."""
    with gr.Tab("Gallery", id="gallery", elem_id="studio_gallery_tab"):
        if images.is_shown:
            folder = text(images.folder)
            gr.HTML(
                f'<div class="studio-gallery" data-folder="{folder}"></div>',
                elem_id="studio_gallery",
            )
        else:
            gr.HTML(empty_html(HIDDEN))
