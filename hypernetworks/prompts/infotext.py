"""The webui's infotext: what a picture was made with, as text in the picture."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def format_infotext(prompt: str, negative: str, pairs: Mapping[str, object]) -> str:
    """Prompt, negative prompt and settings in AUTOMATIC1111's form; values with commas or colons are quoted."""
    settings = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items())
    return "\n".join([prompt, *([f"Negative prompt: {negative}"] if negative else []), settings])


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value


def parse_infotext(text: str) -> tuple[str, str, dict[str, str]]:
    """The inverse: prompt, negative prompt and settings."""
    *lines, last = text.strip().split("\n")
    pairs = dict(_PAIR.findall(last))
    if len(_PAIR.findall(last)) < 3:
        lines, pairs = [*lines, last], {}
    prompt, negative = list[str](), list[str]()
    target = prompt
    for line in lines:
        if line.startswith("Negative prompt:") and target is prompt:
            target, line = negative, line.removeprefix("Negative prompt:").strip()
        target.append(line)
    return "\n".join(prompt), "\n".join(negative), {k: _unquoted(v) for k, v in pairs.items()}


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        try:
            decoded = json.loads(value)
        except ValueError:
            return value
        return decoded if isinstance(decoded, str) else value
    return value
