"""What several tabs show: progress, messages, hints, and text that stays text."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from .job_queue import Update

if TYPE_CHECKING:
    from PIL.Image import Image

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def text(value: object) -> str:
    """Anything of a user or a file as HTML that shows it and is nothing else; no character that
    hides or turns text.
    """
    shown = "".join(
        c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in str(value)
    )
    return escape(shown, quote=True)


def progress_html(update: Update) -> str:
    """The progress bar, its text, and the live preview if there is one."""
    known = f' max="{update.total}" value="{update.done}"' if update.total else ""
    picture = "<i></i>"
    if update.picture is not None:
        picture = f'<img alt="Live preview" src="{data_url(update.picture)}">'
    bar = f"<p>{text(update.note)}</p><progress{known}></progress>"
    return f'<div class="studio-progress">{picture}{bar}</div>'


def data_url(picture: Image) -> str:
    """An image as a small JPEG, embedded in the page."""
    small = picture.convert("RGB")
    small.thumbnail((512, 512))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def messages_html(messages: Sequence[str], kind: str = "note") -> str:
    """Messages as a list; empty where there is nothing to say."""
    if not messages:
        return ""
    items = "".join(f"<li>{text(_sentence(message))}</li>" for message in messages)
    return f'<div role="status"><ul class="studio-messages studio-{kind}">{items}</ul></div>'


def _sentence(message: str) -> str:
    """With a capital letter, unless it begins with a name."""
    return message[:1].upper() + message[1:] if re.match("[a-z]+ ", message) else message


def empty_html(words: str) -> str:
    """What stands where something will be, and how to get it."""
    return f'<p class="studio-empty">{text(words)}</p>'


EXAMPLES = (
    "a strawberry on blue <hypernet:ink:0.8>",
    "a rocket on red <hypernet:night:1>",
    "a penguin on yellow <hypernet:sepia:0.9>",
    "a star on green <hypernet:ink:0.6> <hypernet:sepia:0.5>",
)
"""Prompts to begin with; the first one stands in the prompt."""


def first_screen_html(*, is_miniature: bool) -> str:
    """What stands where the first image will be: what this is, and examples for the miniature."""
    what = "Hypernetworks change how a Stable Diffusion model draws: by a tag in the prompt."
    how = "Describe an image, click a network, and press Generate (Ctrl+Enter)."
    examples = ""

    # A checkpoint of the user's knows nothing of the networks that ship.
    if is_miniature:
        how = (
            "No image yet. Click an example, or describe an image and press Generate (Ctrl+Enter)."
        )
        examples = "".join(
            f'<li><button type="button" class="studio-example">{text(one)}</button></li>'
            for one in EXAMPLES
        )
        examples = f"<ul>{examples}</ul>"
    return f'<div class="studio-empty studio-first"><p>{what}</p><p>{how}</p>{examples}</div>'
