"""What a payload of gradio's API may hold: looked at before gradio sees it, and written anew from
what was understood.

Gradio copies every file that a payload names, in whatever field, and gives it out. Whether it
checks the path depends on its version and on how the page is served; here, a path must be one that
this very session has uploaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

from starlette.exceptions import HTTPException

from . import limits

KINDS = {
    "Textbox": "text",
    "Radio": "choice",
    "Dropdown": "choice",
    "Slider": "number",
    "Number": "number",
    "Checkbox": "flag",
    "File": "file",
    "State": "nothing",
}
"""Components that the page takes values from, and what they may be.

Another one is refused when the page is built.
"""
_SCALARS = (str, int, float, bool, type(None))
_HASH = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FILE_KEYS = {"path", "url", "size", "orig_name", "mime_type", "is_stream", "meta"}
Owned = Callable[[str], bool]
"""Whether a path was uploaded by the session that asks."""


@dataclass(frozen=True)
class Endpoint:
    """A function of the page.

    Attributes:
        kinds: of its inputs; ``files`` and ``choices`` are lists.
        skipped: inputs that may be left out of a call by name.
    """

    number: int
    name: str | None
    kinds: tuple[str, ...]
    skipped: tuple[bool, ...]


def endpoints(page: Any) -> dict[int, Endpoint]:
    """All functions of a gradio page.

    Raises:
        TypeError: one takes its input from a component that nobody has looked at.
    """
    found = {}
    for number, function in page.fns.items():
        kinds = tuple(_kind(block) for block in function.inputs)
        skipped = tuple(bool(block.skip_api) for block in function.inputs)
        found[number] = Endpoint(number, function.api_name or None, kinds, skipped)
    return found


def _kind(block: Any) -> str:
    name = type(block).__name__
    if name not in KINDS:
        raise TypeError(f"what a {name} may hold is not known: add it to payloads.KINDS")
    if getattr(block, "multiselect", False):
        return "choices"
    return "files" if getattr(block, "file_count", "single") != "single" else KINDS[name]


def parsed(body: bytes) -> dict[str, Any]:
    """A JSON object, without the numbers that JSON has not.

    Raises:
        HTTPException: 400, it is none.
    """
    try:
        content = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not the JSON of a request") from None
    if not isinstance(content, dict):
        raise HTTPException(400, "the body is not a JSON object")
    return content


def _no_number(name: str) -> None:
    raise ValueError(name)


def written(content: Mapping[str, Any]) -> bytes:
    """The JSON that gradio gets.

    Raises:
        HTTPException: 400, for numbers and characters that JSON has not.
    """
    try:
        return json.dumps(content, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:  # 1e999 is read as infinity; half a character can't be written
        raise HTTPException(400, "the body holds what JSON can't") from None


def checked_call(
    content: Mapping[str, Any], functions: Mapping[int, Endpoint], name: str | None, owned: Owned
) -> dict[str, Any]:
    """A call as gradio may have it: known keys, and values of the kinds that the function's inputs
    have.

    Args:
        name: of the function, where the address says it; a number in the body goes first, as in
            gradio.

    Raises:
        HTTPException: 400, 403, 404, 413 or 422 with what is wrong.
    """
    # gradio goes by the number where it is there, so the check must, too.
    number = content.get("fn_index")
    if number is None:
        number = next((n for n, one in functions.items() if name and one.name == name), None)
    if type(number) is not int or number not in functions:
        raise HTTPException(404, "there is no such function")

    data = content.get("data")
    if not isinstance(data, list):
        raise HTTPException(422, "data must be a list")

    trigger = content.get("trigger_id")
    return {
        "data": _values(data, functions[number], owned),
        "fn_index": number,
        "session_hash": _hash(content.get("session_hash")),
        "event_data": _event(content.get("event_data")),
        "trigger_id": trigger if type(trigger) is int else None,
        "simple_format": content.get("simple_format") is True,
    }


def checked_words(content: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The few short words of a request that carries no values.

    Raises:
        HTTPException: 422, one is something else.
    """
    found = {name: content.get(name) for name in names}
    for value in found.values():
        if type(value) is not int:
            _hash(value, optional=False)
    return found


def _hash(value: Any, optional: bool = True) -> str | None:
    if value is None and optional:
        return None
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise HTTPException(422, "a session is named by at most 64 letters and digits")
    return value


def _event(value: Any) -> Any:
    """Which item was chosen; what gradio sends beside it, images among it, is not needed and left
    out.
    """
    if not isinstance(value, dict):
        return None
    index, chosen = value.get("index"), value.get("selected")
    return {
        "index": index if type(index) is int else None,
        "value": None,
        "selected": chosen if isinstance(chosen, bool) else True,
    }


def _values(data: Sequence[Any], function: Endpoint, owned: Owned) -> list[Any]:
    needed = [not skipped for skipped in function.skipped]
    if len(data) != len(function.kinds) and len(data) == sum(needed):
        rest = iter(data)
        data = [next(rest) if is_needed else None for is_needed in needed]
    if len(data) != len(function.kinds):
        raise HTTPException(422, f"this function takes {len(function.kinds)} values")
    texts = [0]
    return [_value(v, kind, owned, texts) for v, kind in zip(data, function.kinds, strict=True)]


def _value(value: Any, kind: str, owned: Owned, texts: list[int]) -> Any:
    if kind == "nothing" or value is None:
        return None
    if kind in ("choices", "files"):
        items = value if isinstance(value, list) else [value]
        if len(items) > limits.MOST_VALUES:
            raise HTTPException(413, f"a list holds at most {limits.MOST_VALUES} values")
        one = "choice" if kind == "choices" else "file"
        return [_value(item, one, owned, texts) for item in items]
    if kind == "file":
        return _file(value, owned)
    if not isinstance(value, _SCALARS) or (kind in ("number", "flag") and isinstance(value, str)):
        raise HTTPException(422, f"a {kind} is expected where something else stands")

    if isinstance(value, str):
        _check_text(value, texts)
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise HTTPException(422, "a number is too large")

    return str(value) if kind == "text" else value


def _check_text(value: str, texts: list[int]) -> None:
    texts[0] += len(value)
    if len(value) > limits.LONGEST_TEXT or texts[0] > limits.MOST_TEXT:
        raise HTTPException(413, f"a text holds at most {limits.LONGEST_TEXT:,} characters")
    if value.lstrip()[:1] in ("{", "[") and '"path"' in value and "gradio.FileData" in value:
        raise HTTPException(422, "a text is expected where a file stands")


def _file(value: Any, owned: Owned) -> dict[str, Any]:
    """A file of this session's own uploads, described by its path alone."""
    if not isinstance(value, dict) or not value.keys() <= _FILE_KEYS:
        raise HTTPException(422, "a file is expected where something else stands")

    path, url, name = value.get("path"), value.get("url"), value.get("orig_name")
    if not isinstance(path, str) or not owned(path):
        raise HTTPException(403, "a file must be uploaded by this session first")
    if url is not None and not (isinstance(url, str) and _is_own(url, path)):
        raise HTTPException(403, "addresses are not fetched: upload the file")
    if value.get("is_stream"):
        raise HTTPException(422, "a stream is not a file")

    size = value.get("size")
    return {
        "path": path,
        "orig_name": PurePath(name).name[:200] if isinstance(name, str) else None,
        "size": size if type(size) is int and 0 <= size < 1 << 63 else None,
        "meta": {"_type": "gradio.FileData"},
    }


def _is_own(url: str, path: str) -> bool:
    """Whether an address is the one that the page gives an upload; it is left out in any case."""
    where = unquote(url).replace("\\", "/")
    return where.endswith("/gradio_api/file=" + path.replace("\\", "/")) or where == path
