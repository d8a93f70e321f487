"""TOML: written for ``run.toml``, and read where Python is older than its own reader (3.11).

The reader knows what configurations are made of: tables, arrays of tables, strings, numbers, true
and false, arrays and inline tables. Dates and multi-line strings are refused.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import TrainingSettingsError

LARGEST = 1 << 20
"""Bytes of a configuration."""
DEEPEST = 16
_KEY = re.compile(r'[ \t]*(?:([A-Za-z0-9_-]+)|("(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'))[ \t]*')
_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\r?\n|$)")
_NUMBER = re.compile(r"[+-]?(?:inf|nan|[0-9][0-9_]*(?:\.[0-9_]+)?(?:[eE][+-]?[0-9]+)?)(?![\w.:-])")
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'')


def read_toml(path: Path) -> dict[str, Any]:
    """Read a configuration.

    Raises:
        TrainingSettingsError: it can't be read, or is no TOML.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it is larger than {LARGEST >> 10} KiB")
        text = path.read_text(encoding="utf-8-sig")
        return parse_toml(text)
    except (OSError, ValueError, RecursionError) as error:  # broken UTF-8 is a ValueError
        raise TrainingSettingsError(f"{path} can't be read as TOML: {error}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Read TOML with Python's own reader, or with ours where there is none.

    Raises:
        ValueError: it is no TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib.loads(text)
    return Reader(text).read()


class Reader:
    """A reader of the part of TOML that configurations use."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.tree: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """The whole text.

        Raises:
            ValueError: with the line that can't be understood.
        """
        # Entries belong to the table that was named last.
        table = self.tree
        while not self._ends():
            if self._takes("[["):
                keys = self._keys("]]")
                rows = self._inside(keys[:-1]).setdefault(keys[-1], [])
                if not isinstance(rows, list):
                    raise self._wrong(f"{keys[-1]} is no array of tables")
                table = {}
                rows.append(table)
            elif self._takes("["):
                table = self._inside(self._keys("]"))
            else:
                self._entry(table)
            self._match(_BLANK, "the end of the line")
        return self.tree

    def _ends(self) -> bool:
        self.at = self._skipped()
        return self.at >= len(self.text)

    def _skipped(self) -> int:
        found = _SPACE.match(self.text, self.at)
        return self.at if found is None else found.end()

    def _takes(self, sign: str) -> bool:
        if not self.text.startswith(sign, self.at):
            return False
        self.at += len(sign)
        return True

    def _match(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise self._wrong(f"{what} is expected")
        self.at = found.end()
        return found

    def _wrong(self, reason: str) -> ValueError:
        return ValueError(f"line {self.text.count(chr(10), 0, self.at) + 1}: {reason}")

    def _keys(self, end: str) -> list[str]:
        """``a.b."c"`` up to a sign."""
        found = list[str]()
        while True:
            match = self._match(_KEY, "a key")
            found.append(match[1] or _unquoted(match[2]))
            if self._takes(end):
                return found
            if not self._takes("."):
                raise self._wrong(f"{end} is expected")

    def _inside(self, keys: list[str]) -> dict[str, Any]:
        """The table of this name, made if need be; the last one of an array of tables."""
        table: Any = self.tree
        for key in keys:
            table = table.setdefault(key, {})
            table = table[-1] if isinstance(table, list) and table else table
            if not isinstance(table, dict):
                raise self._wrong(f"{key} is no table")
        found: dict[str, Any] = table
        return found

    def _entry(self, table: dict[str, Any], depth: int = 0) -> None:
        *parents, last = self._keys("=")
        for key in parents:
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise self._wrong(f"{key} is no table")
        if last in table:
            raise self._wrong(f"{last} is there twice")
        table[last] = self._value(depth)

    def _value(self, depth: int) -> Any:
        self._match(re.compile(r"[ \t]*"), "")
        if depth > DEEPEST:
            raise self._wrong("it is nested too deeply")
        if self._takes("["):
            return self._array(depth)
        if self._takes("{"):
            return self._inline(depth)

        for word, value in (("true", True), ("false", False)):
            if self._takes(word):
                return value

        if self.text.startswith(('"""', "'''"), self.at):
            raise self._wrong("strings over several lines are not supported")
        if self.text.startswith(('"', "'"), self.at):
            return _unquoted(self._match(_STRING, "the end of a string")[0])

        number = self._match(_NUMBER, "a value")[0].replace("_", "")
        return int(number) if re.fullmatch(r"[+-]?\d+", number) else float(number)

    def _array(self, depth: int) -> list[Any]:
        found = list[Any]()
        while True:
            self.at = self._skipped()
            if self._takes("]"):
                return found
            found.append(self._value(depth + 1))
            self.at = self._skipped()
            if not self._takes(",") and not self.text.startswith("]", self.at):
                raise self._wrong("] is expected")

    def _inline(self, depth: int) -> dict[str, Any]:
        found = dict[str, Any]()
        while True:
            self.at = self._skipped()
            if self._takes("}"):
                return found
            self._entry(found, depth + 1)
            self.at = self._skipped()
            if not self._takes(",") and not self.text.startswith("}", self.at):
                raise self._wrong("} is expected")


_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


def _unquoted(text: str) -> str:
    if text.startswith("'"):
        return text[1:-1]

    def escaped(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] in "uU":
            return chr(int(code[1:], 16))
        if code not in _ESCAPES:
            raise ValueError(f"the escape \\{code} is unknown")
        return _ESCAPES[code]

    return re.sub(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", escaped, text[1:-1])


def write_toml(content: Mapping[str, Any]) -> str:
    """Plain values as TOML; lists of tables come last, as everything after them belongs to them."""
    lines = list[str]()
    for key, value in content.items():
        if not _are_tables(value):
            lines.append(f"{_key(key)} = {_written(value)}")
    for key, value in content.items():
        for table in value if _are_tables(value) else ():
            lines += ["", f"[[{_key(key)}]]"]
            lines += [f"{_key(name)} = {_written(item)}" for name, item in table.items()]
    return "\n".join(lines) + "\n"


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        text = repr(value)  # TOML wants a digit on both sides of a point
        return text if re.search(r"[.einf]", text) else text + ".0"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
