"""A sheet as one HTML file, which needs no internet connection and no studio."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..widgets import text
from .planning import Cell, Plan

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...hosts.diffusers import Picture

SMALL = 256 * 256
"""Up to so many pixels, an image is kept as PNG; larger ones are JPEGs, for a smaller file."""
_STYLE = """
:root { color-scheme: light dark; font: 15px system-ui, sans-serif; }
body { margin: 1.5em; }
table { border-collapse: collapse; }
th { font-weight: 500; max-width: 16em; overflow-wrap: anywhere; padding: .3em .5em; }
th small { display: block; opacity: .75; }
td { padding: 2px; }
td img { cursor: zoom-in; display: block; width: var(--size, 160px); }
dialog { border: 1px solid #8886; border-radius: 8px; max-width: 96vw; }
dialog img { display: block; margin: auto; max-height: 75vh; max-width: 92vw; min-height: 50vh; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
"""
_SCRIPT = """
const dialog = document.querySelector("dialog");
document.addEventListener("click", (event) => {
    const image = event.target.closest("td img");
    if (event.target === dialog) dialog.close();
    if (!image) return;
    dialog.querySelector("img").src = image.src;
    dialog.querySelector("pre").textContent = `${image.alt}\\n\\n${image.dataset.infotext}`;
    dialog.showModal();
});
document.querySelector("input").addEventListener("input", (event) => {
    document.body.style.setProperty("--size", `${event.target.value}px`);
});
"""


def page_file(
    todo: Plan,
    pictures: Mapping[Cell, Picture],
    title: str,
    notes: Mapping[str, str] | None = None,
) -> str:
    """The file's text: a table for each page, images to click, and their infotexts.

    Args:
        notes: a second line for a column, by its label.
    """
    sources: dict[int, str] = {}  # cells that show one image have one picture
    for picture in pictures.values():
        if id(picture) not in sources:
            sources[id(picture)] = _embedded(picture.image)

    tables = "".join(
        _table(todo, page, pictures, sources, notes or {}) for page in range(len(todo.labels[2]))
    )
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{text(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><body>'
        f"<h1>{text(title)}</h1><label>Size of the images "
        '<input type="range" min="64" max="768" value="160"></label>'
        f"{tables}<dialog><img alt=''><pre></pre></dialog><script>{_SCRIPT}</script></body></html>"
    )


def _table(
    todo: Plan,
    page: int,
    pictures: Mapping[Cell, Picture],
    sources: Mapping[int, str],
    notes: Mapping[str, str],
) -> str:
    columns, rows, pages = todo.labels
    heads = "".join(
        f'<th scope="col">{text(label)}'
        f"{f'<small>{text(notes[label])}</small>' if label in notes else ''}</th>"
        for label in columns
    )
    lines = ""
    for row, label in enumerate(rows):
        cells = "".join(
            f"<td>{_cell(todo, (page, row, column), pictures, sources)}</td>"
            for column in range(len(columns))
        )
        lines += f'<tr><th scope="row">{text(label)}</th>{cells}</tr>'

    caption = f"<h2>{text(pages[page])}</h2>" if pages[page] else ""
    return f"{caption}<table><tr><td></td>{heads}</tr>{lines}</table>"


def _cell(
    todo: Plan, cell: Cell, pictures: Mapping[Cell, Picture], sources: Mapping[int, str]
) -> str:
    if cell not in pictures:
        return ""
    picture = pictures[cell]
    words = f'alt="{text(todo.label(cell))}" data-infotext="{text(picture.infotext)}"'
    return f'<img src="{sources[id(picture)]}" {words}>'


def _embedded(image: Image) -> str:
    """An image as a data URL."""
    # In a small image, the artefacts of a JPEG would be larger than what is compared.
    buffer = io.BytesIO()
    kind = "PNG" if image.width * image.height <= SMALL else "JPEG"
    image.convert("RGB").save(buffer, format=kind, quality=92)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
