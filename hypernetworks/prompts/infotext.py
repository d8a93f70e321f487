"""The webui's infotext: the settings of an image, as text in its file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from .json_infotexts import parse_json_infotext

_KEY = re.compile(r"\s*(\w[\w /-]*[\w/-]):\s*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_HASH = re.compile(r"([^:]+): ([0-9a-f]{4,64})(?:, |$)")
_LEAST_PAIRS = 3
"""A last line with fewer settings than this is part of the prompt."""


def format_infotext(prompt: str, negative: str, pairs: Mapping[str, object]) -> str:
    """Write prompt, negative prompt and settings as AUTOMATIC1111 does.

    Values with commas, colons, quotes or line breaks are quoted.
    """
    settings = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items())
    return "\n".join([prompt, *([f"Negative prompt: {negative}"] if negative else []), settings])


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value


def parse_infotext(text: str) -> tuple[str, str, dict[str, str]]:
    """Parse an infotext, also one that another program wrote as JSON.

    Returns:
        Prompt, negative prompt and settings, by AUTOMATIC1111's names.
    """
    text = text.lstrip("\ufeff")  # which editors put at the beginning of a file
    if (found := parse_json_infotext(text)) is not None:
        return found

    lines, pairs = _split(text.strip().split("\n"))
    prompt, negative = list[str](), list[str]()
    target = prompt
    for line in lines:
        if line.startswith("Negative prompt:") and target is prompt:
            target, line = negative, line.removeprefix("Negative prompt:").strip()
        target.append(line)
    return "\n".join(prompt), "\n".join(negative), pairs


def _split(lines: list[str]) -> tuple[list[str], dict[str, str]]:
    """Separate the lines of the prompts from the settings."""
    pairs = _pairs(lines[-1])
    if len(pairs) >= _LEAST_PAIRS:
        return lines[:-1], pairs

    # Some extensions add lines of their own after the settings.
    settings = next((i for i in range(len(lines) - 1, 0, -1) if lines[i].startswith("Steps: ")), 0)
    pairs = _pairs(lines[settings])
    if not settings or len(pairs) < _LEAST_PAIRS:
        return lines, {}
    for line in lines[settings + 1 :]:
        key, colon, value = line.partition(": ")
        if line.strip():
            pairs[key if colon else "Lines after the settings"] = value if colon else line
    return lines[:settings], pairs


def _json_end(line: str, position: int) -> int | None:
    """The end of a JSON list or object, which some extensions write without quotes."""
    if not line.startswith(("{", "["), position):
        return None
    try:
        end = json.JSONDecoder().raw_decode(line, position)[1]
    except (ValueError, RecursionError):
        return None
    return end if line[end : end + 1] in ("", ",") else None


def _pairs(line: str) -> dict[str, str]:
    """Parse ``Key: value, Key: value``; quoted values may contain commas."""
    pairs: dict[str, str] = {}
    position = 0
    while key := _KEY.match(line, position):
        quoted = _QUOTED.match(line, key.end())
        end = quoted.end() if quoted else _json_end(line, key.end()) or line.find(",", key.end())
        end = len(line) if end < 0 else end
        pairs[key[1]] = _unquoted(line[key.end() : end].strip())
        position = end + 1
    return pairs


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        try:
            decoded = json.loads(value)
        except ValueError:
            return value
        return decoded if isinstance(decoded, str) else value
    return value


def format_hashes(hashes: Mapping[str, str]) -> str:
    """Write the value of "Hypernet hashes": ``name: 0123456789, other: …``, like "Lora hashes".

    Args:
        hashes: by name, as in tags. Names need no quotes: a tag's name contains no colon, so the
            colon always ends it, whatever commas, quotes or brackets come before.
    """
    return ", ".join(f"{name}: {value}" for name, value in hashes.items())


def parse_hashes(text: str) -> dict[str, str]:
    """Parse what :func:`format_hashes` writes; stops at the first pair that it can't parse."""
    hashes: dict[str, str] = {}
    position = 0
    while pair := _HASH.match(text, position):
        hashes[pair[1]] = pair[2]
        position = pair.end()
    return hashes
