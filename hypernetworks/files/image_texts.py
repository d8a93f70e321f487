"""Where programs put the settings of an image: PNG text, or EXIF in JPEG, WebP and AVIF."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

_CHUNKS = ("prompt", "invokeai_metadata", "sd-metadata", "workflow")
"""PNG text of ComfyUI and InvokeAI. ComfyUI's workflow is the last resort."""
_EXIF, _USER_COMMENT, _MODEL = 0x8769, 0x9286, 0x0110


def infotext_in(info: Mapping[Any, Any], exif: Any) -> str | None:
    """What an image without A1111's own text says about how it was generated.

    Args:
        info: Pillow's ``image.info``.
        exif: Pillow's ``image.getexif()``.
    """
    for key in _CHUNKS:
        if isinstance(found := info.get(key), str) and found.lstrip().startswith("{"):
            return found
    return _novelai(info) or _comfyui_in_exif(exif) or _user_comment(exif)


def _novelai(info: Mapping[Any, Any]) -> str | None:
    """The settings, with the prompt, which early versions wrote beside them."""
    comment = info.get("Comment")
    if not isinstance(comment, str):
        return None
    with suppress(ValueError, RecursionError):
        found = json.loads(comment)
        if isinstance(found, dict):
            return json.dumps({"Description": info.get("Description"), **found})
    return None


def _comfyui_in_exif(exif: Any) -> str | None:
    """In a WebP, ComfyUI's graph stands where a camera would put its name."""
    found = exif.get(_MODEL)
    is_graph = isinstance(found, str) and found.startswith("prompt:")
    return found.removeprefix("prompt:") if is_graph else None


def _user_comment(exif: Any) -> str | None:
    """The UserComment: eight bytes that name the encoding, then the text, in either byte order."""
    comment = exif.get_ifd(_EXIF).get(_USER_COMMENT)
    if isinstance(comment, str):
        return comment
    if not isinstance(comment, bytes):
        return None
    code, content = comment[:8], comment[8:]
    if code != b"UNICODE\0":
        return content.decode("utf-8", "replace").strip("\0")

    # The letters of an infotext are mostly ASCII: the zero bytes tell the order.
    little = content[1::2].count(0) > content[0::2].count(0)
    return content.decode("utf-16-le" if little else "utf-16-be", "replace").strip("\0")
