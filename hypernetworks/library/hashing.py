"""SHA-256 of files, computed in the background, once per state of a file, and stored."""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import FileWriteError
from ..files.writing import replace
from .background import Background
from .entry import Entry

MOST = 50_000
"""Most hashes that are kept; the oldest are dropped first."""
State = tuple[str, int, int]
"""The state of a file: absolute path, size, modification time."""


def usual_store() -> Path:
    """The usual file for hashes, in the user's cache folder, whose loss costs only time."""
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "hypernetworks" / "hashes.json"


class Hashes:
    """A cache of file hashes.

    Args:
        store: a JSON file to keep them in, made when necessary; ``None`` to keep them until the
            program ends. Several programs may share it. A damaged one counts as empty.
    """

    def __init__(self, store: Path | None = None) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, int, str]] | None = None
        self._saved = True
        self._background: Background[str] = Background(self._save)

    def known(self, entry: Entry) -> str | None:
        """The hash of the file in its current state, if it is known; the file isn't read."""
        try:
            return self._recall(_state(entry))
        except OSError:
            return None

    def start(self, entry: Entry) -> None:
        """Compute the hash in the background, if it is unknown. Returns at once, never fails."""
        with suppress(OSError):
            state = _state(entry)
            if self._recall(state) is None:
                self._background.start(state, lambda: self._compute(entry, state))

    def sha256(self, entry: Entry) -> str:
        """The hash, hexadecimal; computed now if it isn't known yet.

        Raises:
            OSError: the file can't be read.
        """
        state = _state(entry)
        return self._background.result(
            state, lambda: self._compute(entry, state), lambda: self._recall(state)
        )

    def stop(self) -> None:
        """Cancel waiting work and save the known hashes; called at the end of the program."""
        self._background.stop()

    def _recall(self, state: State) -> str | None:
        path, size, mtime = state
        with self._lock:
            if self._known is None:
                self._known = self._read_store()
            record = self._known.get(path)
        return record[2] if record is not None and record[:2] == (size, mtime) else None

    def _compute(self, entry: Entry, state: State) -> str:
        found = self._recall(state) or entry.sha256(self._background.stopping)
        # If the file has changed meanwhile, the hash belongs to neither of its states.
        if _state(entry) == state:
            with self._lock:
                assert self._known is not None
                self._known.pop(state[0], None)
                self._known[state[0]] = state[1], state[2], found
                self._saved = False
        return found

    def _read_store(self) -> dict[str, tuple[int, int, str]]:
        try:
            content = json.loads(self._store.read_bytes()) if self._store is not None else {}
        except (OSError, ValueError, RecursionError):
            return {}
        # Another program, or a later version, may have written something else.
        records = content.items() if isinstance(content, dict) else ()
        return {path: tuple(record) for path, record in records if _is_record(record)}  # type: ignore[misc]

    def _save(self) -> None:
        with self._lock:
            ours, saved = dict(self._known or {}), self._saved
            self._saved = True

        if saved or self._store is None:
            return

        # Another program may have added some.
        kept = list(({**self._read_store(), **ours}).items())[-MOST:]
        text = json.dumps(dict(kept), separators=(",", ":"))

        # If the disk is full, they are computed again after the next start.
        with suppress(OSError, FileWriteError):
            self._store.parent.mkdir(parents=True, exist_ok=True)
            replace(self._store, lambda temporary: temporary.write_text(text, encoding="ascii"))


def _state(entry: Entry) -> State:
    status = entry.path.stat()
    return str(entry.path.absolute()), status.st_size, status.st_mtime_ns


def _is_record(record: Any) -> bool:
    return (
        isinstance(record, list)
        and [type(value) for value in record] == [int, int, str]
        and len(record[2]) == 64
        and set(record[2]) <= set("0123456789abcdef")
    )
