"""One library for this webui, and the host's own list of hypernetworks kept in step with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import UnsupportedVariantError
from ...library import Entry, Library
from . import hashes, replacing, settings
from .host import say_fault

_LIBRARY = Library(())
"""The one instance.

The package stays imported when the webui reloads its scripts, and what is loaded with it.
"""


def folders() -> tuple[Path, ...]:
    """Where networks are looked for, as absolute paths: the webui's own folder, then those of our
    setting, each once.
    """
    from modules import paths, shared

    own = (
        getattr(shared.cmd_opts, "hypernetwork_dir", None)
        or Path(paths.models_path) / "hypernetworks"
    )
    found: dict[Path, Path] = {}
    # By their real paths: a link, or a folder inside another, would list its files twice.
    for folder in (Path(own).absolute(), *settings.extra_folders()):
        real = Path(os.path.realpath(folder))
        if not any(real == other or other in real.parents for other in found):
            found[real] = folder
    return tuple(found.values())


def library() -> Library:
    """The library of this webui, with the folders and the size of cache that the settings say
    now.
    """
    _LIBRARY.look_in(folders())
    _LIBRARY.cache_bytes = settings.cache_bytes()
    return _LIBRARY


def trim() -> None:
    """Trim the cache to its limit after a job. Never raises."""
    _LIBRARY.trim()


def refresh() -> None:
    """Look at the folders again, and tell the host."""
    from modules import shared

    library().scan()
    shared.hypernetworks = host_list()


def host_list() -> dict[str, str]:
    """What ``shared.hypernetworks`` holds: path by the name that a tag writes.

    Files of all types.
    """
    found = library()
    pt_last = sorted(found.entries, key=lambda entry: entry.path.suffix.lower() == ".pt")
    # of two files with one name the .pt wins, which the host can use, too
    paths = {found.stem_of(entry): str(entry.path) for entry in pt_last if entry.is_text}
    paths = {name: path for name, path in paths.items() if name != "None"}  # "None": no network
    return dict(sorted(paths.items(), key=lambda item: item[0].lower()))


def short_hash(entry: Entry) -> str | None:
    """First ten characters of the file's SHA-256; read from the file once.

    ``None`` with ``--no-hashing``.
    """
    found = hashes.sha256(entry, _LIBRARY.stem_of(entry))
    return found[:10] if found else None


def known_hash(entry: Entry) -> str | None:
    """The same if it has been computed before, else ``None``: for lists of many files."""
    found = hashes.known_sha256(entry, _LIBRARY.stem_of(entry))
    return found[:10] if found else None


def start_hash(entry: Entry) -> None:
    """Have it computed in the background, for a file that will be used soon; returns at once."""
    hashes.start(entry, _LIBRARY.stem_of(entry))


def register() -> None:
    """Callback ``on_before_ui``: take over the host's list where it has one; any number of
    times.
    """
    with suppress(OSError):
        folders()[0].mkdir(
            parents=True, exist_ok=True
        )  # so that users of every webui find where files belong
    host = _host_module()
    if host is not None:
        replacing.replace(host, "list_hypernetworks", _list_ours)
        replacing.replace(host.Hypernetwork, "load", _load_what_can_be)
    refresh()


def _host_module() -> Any:
    """The built-in implementation: A1111, Forge and reForge have it, and all of their callers ask
    there.
    """
    try:
        from modules.hypernetworks import hypernetwork
    except ImportError:
        return None
    # Where the webui has none, ours stands in for what others ask there.
    return None if getattr(hypernetwork, "hypernetworks_shim", False) else hypernetwork


def _list_ours(original: Callable[[str], dict[str, str]]) -> Callable[[str], dict[str, str]]:
    def list_hypernetworks(path: str) -> dict[str, str]:
        if os.path.realpath(path) != os.path.realpath(folders()[0]):
            return original(path)
        try:
            library().scan()
            return host_list()
        except Exception:
            say_fault("listing the files failed; the webui lists those that it knows")
            return original(path)

    return list_hypernetworks


def _load_what_can_be(original: Callable[..., Any]) -> Callable[..., Any]:
    def load(self: Any, filename: str | None, *arguments: Any, **named: Any) -> Any:
        if filename is not None and Path(filename).suffix.lower() != ".pt":
            raise UnsupportedVariantError(
                f"{filename}: the webui's own hypernetwork training reads .pt files only. "
                "Convert the file first: "
                f'python -m hypernetworks convert "{filename}" '
                f'"{Path(filename).with_suffix(".pt")}" '
                f"(in the folder {Path(__file__).parents[3]}). Tags in prompts can use it as it is"
            )
        return original(self, filename, *arguments, **named)

    return load
