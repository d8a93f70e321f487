"""SHA-256 of files through the host's own cache of hashes, so that a file is hashed once by it and
by us together.

The host keeps them over restarts. They are computed one at a time, in the background.
"""

from __future__ import annotations

from typing import Any

from ...library import Entry
from ...library.background import Background

_BACKGROUND: Background[str | None] = Background()


def known_sha256(entry: Entry, name: str) -> str | None:
    """The hash of the file as it is now, if it has been computed before; reads nothing of the file.

    Args:
        name: what a tag calls it. Two files may have had the same name one after the other: a hash
            counts only if the file is no other than then, by its modification time.
    """
    try:
        modified = entry.path.stat().st_mtime
    except OSError:
        return None
    record: Any = _store().get(_title(entry, name)) or {}
    return record.get("sha256") or None if record.get("mtime") == modified else None


def start(entry: Entry, name: str) -> None:
    """Compute it in the background unless it is known; returns at once.

    Not with ``--no-hashing``.
    """
    from modules import shared

    if not getattr(shared.cmd_opts, "no_hashing", False) and known_sha256(entry, name) is None:
        _BACKGROUND.start(entry.path, lambda: _compute(entry, name))


def sha256(entry: Entry, name: str) -> str | None:
    """The same, waited for if need be; ``None`` with ``--no-hashing``, or where the file can't be
    read.
    """
    return _BACKGROUND.result(
        entry.path, lambda: _compute(entry, name), lambda: known_sha256(entry, name)
    )


def _compute(entry: Entry, name: str) -> str | None:
    from modules import hashes

    known = known_sha256(entry, name)
    if known is not None:
        return known
    title = _title(entry, name)
    try:
        _store().pop(
            title, None
        )  # the host takes any hash that is newer than the file, that of another file, too
        return hashes.sha256(str(entry.path), title) or None
    except OSError:
        return None


def _store() -> Any:
    from modules import hashes

    return hashes.cache("hashes")


def _title(entry: Entry, name: str) -> str:
    """The host's own title for ``.pt``, the only files that it knows; others may have the same
    stem.
    """
    suffix = entry.path.suffix
    return f"hypernet/{name}{'' if suffix.lower() == '.pt' else suffix}"
