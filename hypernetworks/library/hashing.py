"""SHA-256 of files: computed in the background, once for each state of a file, and kept over
restarts.
"""

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
"""Files whose hashes are kept; the ones that were hashed first are forgotten first."""
State = tuple[str, int, int]
"""A file as it is now: absolute path, size, modification time."""


def usual_store() -> Path:
    """Where a program of one user keeps hashes: in the user's cache folder; losing it only costs
    time.
    """
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
        store: a JSON file to keep them in, made when there is something to keep; ``None`` keeps
            them until the program ends. Several programs may share it. One that is damaged counts
            as empty.
    """

    def __init__(self, store: Path | None = None) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, int, str]] | None = None
        self._saved = True
        self._background: Background[str] = Background(self._save)

    def known(self, entry: Entry) -> str | None:
        """The hash of the file as it is now, if it has been computed before; reads nothing of the
        file.
        """
        try:
            return self._recall(_state(entry))
        except OSError:
            return None

    def start(self, entry: Entry) -> None:
        """Compute it in the background unless it is known; returns at once, and never fails."""
        with suppress(OSError):
            state = _state(entry)
            if self._recall(state) is None:
                self._background.start(state, lambda: self._compute(entry, state))

    def sha256(self, entry: Entry) -> str:
        """The hash, hexadecimal; waited for where it isn't known yet.

        Raises:
            OSError: the file can't be read.
        """
        state = _state(entry)
        known = self._recall(state)
        return (
            known
            if known is not None
            else self._background.result(state, lambda: self._compute(entry, state))
        )

    def stop(self) -> None:
        """Cancel pending work and save known hashes; called automatically when the program ends."""
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
        if (
            _state(entry) == state
        ):  # else it changed while it was read: the hash is neither the old nor the new one's
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
        records = content.items() if isinstance(content, dict) else ()
        return {path: tuple(record) for path, record in records if _is_record(record)}  # type: ignore[misc]

    def _save(self) -> None:
        with self._lock:
            ours, saved = dict(self._known or {}), self._saved
            self._saved = True

        if saved or self._store is None:
            return

        kept = list(({**self._read_store(), **ours}).items())[
            -MOST:
        ]  # another program may have added some
        text = json.dumps(dict(kept), separators=(",", ":"))

        with suppress(
            OSError, FileWriteError
        ):  # on a full disk, hashes are only lost at the next restart
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
