"""Small pieces of HTML: messages, images, and text that stays text."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def text(value: object) -> str:
    """Anything of a user or a file as HTML that shows it and is nothing else; no character that
    hides or turns text.
    """
    shown = "".join(
        c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in str(value)
    )
    return escape(shown, quote=True)


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
    """With a capital letter, unless it begins with a name; a file's may have blanks."""
    is_of_file = re.match(r"[^:]{1,250}\.\w{2,12}: ", message)
    is_sentence = not is_of_file and re.match("[a-z]+ ", message)
    return message[:1].upper() + message[1:] if is_sentence else message


def empty_html(words: str) -> str:
    """What stands where something will be, and how to get it."""
    return f'<p class="studio-empty">{text(words)}</p>'
