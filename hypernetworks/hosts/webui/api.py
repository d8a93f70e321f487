"""Our API routes: list the networks, refresh the list, and inspect one file.

They read nothing but files of the library, and show no path outside its folders.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from ...errors import HypernetworkError
from ...files import read
from ...library import Entry, inspect
from ...library.sidecars import FolderNames, Listings, for_the_panel, read_sidecars
from . import card_actions, folders, shims
from .access import HEADER as HEADER
from .access import PREFIX as PREFIX
from .access import Routes, without_folders
from .cards_tab.cards import UNKNOWN, facts, named
from .checks import check

SECONDS = 0.5
"""How long one list may look into files that nobody has looked into before."""


def register(app: Any) -> None:
    """Callback ``on_app_started``: add the routes; any number of times."""
    routes = Routes(app)
    routes.reading("/list", list_networks)
    routes.posting("/refresh", refresh)
    routes.reading("/inspect", inspect_network, "name")
    routes.reading("/check", check_names, "name")
    routes.reading("/preview", preview, "name")
    for path, action in card_actions.ACTIONS.items():
        routes.changing(path, _on_card(action), "name")

    _register_training(routes)
    if shims.needs_route(app):
        answer = shims.list_as_the_webui_does
        routes.add(shims.ROUTE, "GET", routes.read_only(answer), answer)


def _register_training(routes: Routes) -> None:
    from .training import routes as training  # not when the webui loads its scripts: it takes time

    training.register(routes)


def _on_card(action: card_actions.Action) -> Callable[[Request, bytes], Any]:
    @wraps(action)
    def answer(request: Request, body: bytes) -> Any:
        asked = dict(request.query_params)
        return action(folders.library().find(asked.get("name", "")), asked, body)

    return answer


def list_networks(_request: Request) -> list[dict[str, Any]]:
    """All networks: names as in tags, folders, sizes, and what is known without loading the
    files.
    """
    deadline = time.monotonic() + SECONDS
    listings = Listings()
    described = []
    for name, entries in named(folders.library()).items():
        for entry in entries:
            look = time.monotonic() < deadline
            described.append(
                {"name": name, **_description(entry, listings[entry.path.parent], look)}
            )
    return described


def refresh(_request: Request) -> dict[str, int]:
    """Rescan the folders; returns the number of files."""
    folders.refresh()
    return {"count": len(folders.library().entries)}


def inspect_network(request: Request) -> dict[str, Any]:
    """Describe one file: structure, widths, family, norms, provenance and warnings."""
    name = request.query_params.get("name")
    if not name:
        raise HypernetworkError("add ?name= with the name of a hypernetwork, as in a tag")
    entry = folders.library().find(name)
    found = inspect(
        read(entry.path), entry.path
    ).as_dict()  # not kept: the cache is for what makes images
    return {**found, "path": f"{entry.full_name}{entry.path.suffix}"}


def check_names(request: Request) -> dict[str, Any]:
    """What is known about one name or several, as tags write them, on the loaded model."""
    found = check(request.query_params.getlist("name"))
    for about in found["networks"].values():
        about["problem"] = about["problem"] and without_folders(about["problem"])
    return found


def preview(request: Request) -> Response:
    """The preview image of a network."""
    path = read_sidecars(folders.library().find(request.query_params.get("name", ""))).preview
    return Response(status_code=404) if path is None else FileResponse(path)


def _description(entry: Entry, names: FolderNames, look: bool) -> dict[str, Any]:
    beside = read_sidecars(entry, names)
    family = facts(entry).family if look else UNKNOWN
    return {
        **for_the_panel(entry, beside),
        **card_actions.marks_of(beside),
        "family": (family if family != UNKNOWN else beside.base_model) or None,
        "hash": folders.known_hash(entry),
    }
