"""SHA-256 of files through the host's own cache of hashes, so that a file is hashed once by it and by us together."""

from __future__ import annotations

from typing import Any

from ...library import Entry


def known_sha256(entry: Entry, name: str) -> str | None:
    """The hash of the file as it is now, if it has been computed before; reads nothing of the file.

    Args:
        name: what a tag calls it. Two files may have had the same name one after the other: a hash counts only if the
            file is no other than then, by its modification time.
    """
    try:
        modified = entry.path.stat().st_mtime
    except OSError:
        return None
    record: Any = _store().get(_title(entry, name)) or {}
    return record.get("sha256") or None if record.get("mtime") == modified else None


def sha256(entry: Entry, name: str) -> str | None:
    """The same, computed if need be; ``None`` where the webui runs with ``--no-hashing`` or the file can't be read."""
    from modules import hashes

    known = known_sha256(entry, name)
    if known is not None:
        return known
    title = _title(entry, name)
    try:
        _store().pop(title, None)  # the host takes any hash that is newer than the file, that of another file, too
        return hashes.sha256(str(entry.path), title) or None
    except OSError:
        return None


def _store() -> Any:
    from modules import hashes

    return hashes.cache("hashes")


def _title(entry: Entry, name: str) -> str:
    """The host's own title for ``.pt``, the only files that it knows; others may have the same stem."""
    suffix = entry.path.suffix
    return f"hypernet/{name}{'' if suffix.lower() == '.pt' else suffix}"
