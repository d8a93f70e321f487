"""Files that were uploaded: whose they are, how many bytes they take, and when they go."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.exceptions import HTTPException

from ...files.naming import DEVICE
from . import limits


@dataclass
class _Session:
    """What one browser, or one address without a cookie, has uploaded."""

    files: dict[str, int] = field(default_factory=dict)
    windows: int = 0
    had_window: bool = False
    seen: float = field(default_factory=time.monotonic)


class Uploads:
    """The only record of which files a payload may name.

    Args:
        folder: gradio's cache, which nobody else writes to; absolute, without links.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sessions: dict[str, _Session] = {}

    def new_path(self, name: str) -> Path:
        """A path for a new file, in a fresh folder whose name can't be guessed."""
        # A folder for each, so that the file can keep its name, which is a caption in training.
        folder = self.folder / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder / plain_name(name)

    def room(self, owner: str) -> int:
        """Bytes that a session may still upload."""
        own = self._sessions.get(owner)
        kept = sum(own.files.values()) if own else 0
        in_all = sum(size for one in self._sessions.values() for size in one.files.values())
        return min(limits.MOST_KEPT - kept, limits.MOST_KEPT_IN_ALL - in_all)

    def add(self, owner: str, files: dict[str, int]) -> None:
        """Record files, with their sizes, as a session's own."""
        session = self._session(owner)
        session.files.update(files)
        session.seen = time.monotonic()

    def holds(self, owner: str, path: str) -> bool:
        """Whether a session has uploaded this path, to the letter, and it is still the regular file
        it was.
        """
        session = self._sessions.get(owner)
        return session is not None and path in session.files and is_regular(Path(path))

    def may_see(self, owner: str, path: str) -> bool:
        """Whether a path of the cache is no other session's upload."""
        return not any(
            path in session.files for name, session in self._sessions.items() if name != owner
        )

    @contextmanager
    def window(self, owner: str) -> Iterator[None]:
        """Keep a session's uploads for as long as one of its windows is open."""
        session = self._session(owner)
        session.windows, session.had_window = session.windows + 1, True
        try:
            yield
        finally:
            session.windows -= 1
            session.seen = time.monotonic()

    def sweep(self) -> None:
        """Delete what sessions have left that ended."""
        now = time.monotonic()
        for owner, session in list(self._sessions.items()):
            patience = limits.CLOSED if session.had_window else limits.ABANDONED
            # A reload closes the window and opens it again: uploads outlive that.
            if session.windows == 0 and now - session.seen >= patience:
                remove(session.files)
                del self._sessions[owner]

    def _session(self, owner: str) -> _Session:
        self.sweep()
        session = self._sessions.get(owner)
        if session is None:
            if len(self._sessions) >= 10 * limits.MOST_SESSIONS:
                raise HTTPException(429, "too many sessions: try again in a minute")
            session = self._sessions[owner] = _Session()
        return session


def remove(paths: dict[str, int]) -> None:
    """Delete files, each with the folder that was made for it."""
    for path in paths:
        shutil.rmtree(Path(path).parent, ignore_errors=True)


def is_regular(path: Path) -> bool:
    """Whether a path is a file itself: no link, pipe or device, which are not even opened."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def plain_name(name: str) -> str:
    """The last part of a file name that a client sends, without what some system takes for more
    than a name.
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(c for c in last if c.isprintable() and c not in '<>:"|?*').strip(" .")
    stem, suffix = os.path.splitext(kept)
    # File systems count bytes, and a name in other scripts has several for each letter.
    while len((stem + suffix).encode()) > 150:
        stem, suffix = stem[:-1], suffix[:20]
    kept = stem + suffix or "file"
    return f"_{kept}" if DEVICE.fullmatch(kept) else kept
