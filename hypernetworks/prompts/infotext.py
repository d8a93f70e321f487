"""The webui's infotext: the settings of an image, as text in its file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from .json_infotexts import parse_json_infotext

_END_OF_KEY = re.compile(r'[,:"]')
_PLAIN_KEY = re.compile(r"\w[\w /-]*[\w/-]")
_BLANKS = re.compile(r"\s*")
_COMMA_OR_QUOTE = re.compile(r'[,"]')
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_HASH = re.compile(r"([^:]+): ([0-9a-f]{4,64})(?:, |$)")
_LEAST_PAIRS = 3
"""A last line that begins with fewer settings than this is part of the prompt."""


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
    pairs, count = _pairs(lines[-1])
    if count >= _LEAST_PAIRS:
        return lines[:-1], pairs

    # Some extensions add lines of their own after the settings.
    settings = next((i for i in range(len(lines) - 1, 0, -1) if lines[i].startswith("Steps: ")), 0)
    pairs, count = _pairs(lines[settings])
    if not settings or count < _LEAST_PAIRS:
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


def _pairs(line: str) -> tuple[dict[str, str], int]:
    """Parse ``Key: value, Key: value``; quoted values may contain commas.

    Returns:
        The values by their keys. What is no such pair is a key without a value, so that it isn't
        lost. And how many pairs with plain keys the line begins with, all of them where it begins
        with ``Steps:``: prompts contain colons, too, such as ``(red:1.2)``.
    """
    pairs: dict[str, str] = {}
    plain, is_begun = set[str](), True
    position, quotes = 0, _Quotes(line)
    while position < len(line):
        end = _END_OF_KEY.search(line, position)
        if end is not None and end[0] == ":" and line[position : end.start()].strip():
            key = line[position : end.start()].lstrip()
            start = _BLANKS.match(line, end.end()).end()  # type: ignore[union-attr]
            stop = quotes.value_end(start) or _json_end(line, start) or _comma(line, start)
            pairs[key.rstrip()] = _unquoted(line[start:stop].strip())
        else:
            key, stop = "", quotes.comma(position)
            if piece := line[position:stop].strip():
                pairs.setdefault(piece, "")
        if _PLAIN_KEY.fullmatch(key) is None:
            is_begun = line.startswith("Steps:")
        elif is_begun:
            plain.add(key)
        position = stop + 1
    return pairs, len(plain)


def _comma(line: str, position: int) -> int:
    """The place of the next comma, or the end of the line."""
    found = line.find(",", position)
    return len(line) if found < 0 else found


class _Quotes:
    """The quoted parts of a line, in a time that grows with its length alone."""

    def __init__(self, line: str) -> None:
        self._line = line
        # From a quote that nothing closes on, all quotes are escaped: they open nothing.
        self._unclosed = len(line)

    def end(self, position: int) -> int | None:
        """The end of what is quoted from here; ``None`` if nothing is."""
        if position >= self._unclosed or not self._line.startswith('"', position):
            return None
        found = _QUOTED.match(self._line, position)
        if found is None:
            self._unclosed = position
            return None
        return found.end()

    def value_end(self, position: int) -> int | None:
        """Where a value ends that begins with a quoted part; ``None`` for other values."""
        end = self.end(position)
        return None if end is None else self.comma(end)

    def comma(self, position: int) -> int:
        """The next comma that isn't quoted, or the line's end."""
        while found := _COMMA_OR_QUOTE.search(self._line, position):
            if found[0] == ",":
                return found.start()
            position = self.end(found.start()) or found.end()
        return len(self._line)


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
