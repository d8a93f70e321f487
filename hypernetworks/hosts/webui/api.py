"""Our API routes: list the networks, refresh the list, and inspect one file.

They read nothing but files of the library, and show no path outside its folders.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from ...errors import AmbiguousNameError, HypernetworkError, NameLookupError
from ...files import read
from ...library import Entry, inspect
from ...library.sidecars import FolderNames, Listings, for_the_panel, read_sidecars
from . import card_actions, folders, shims
from .cards_tab.cards import UNKNOWN, facts, named, sound
from .checks import check

PREFIX = "/hypernetworks/v1"
HEADER = "x-hypernetworks"
"""Of requests that change something. A form or a link on another site can't send it."""
SECONDS = 0.5
"""How long one list may look into files that nobody has looked into before."""
_NAME = {"name": "name", "in": "query", "required": True, "schema": {"type": "string"}}


def register(app: Any) -> None:
    """Callback ``on_app_started``: add the routes; any number of times.

    Args:
        app: the FastAPI application; gradio's own, which knows who is logged in, or a plain one
            with ``--nowebui``.
    """
    from modules import shared

    accounts = api_accounts()
    known = {getattr(route, "path", None) for route in app.routes}
    subpath = str(
        getattr(shared.opts, "subpath", None) or ""
    )  # SD.Next's; the others leave it to the server
    for start in dict.fromkeys(("", subpath)):
        for path, method, answer, parameters in (
            ("/list", "GET", list_networks, []),
            ("/refresh", "POST", refresh, []),
            ("/inspect", "GET", inspect_network, [_NAME]),
            ("/check", "GET", check_names, [_NAME]),
            ("/preview", "GET", preview, [_NAME]),
        ):
            if start + PREFIX + path not in known:
                app.add_api_route(
                    start + PREFIX + path,
                    _endpoint(app, accounts, answer),
                    methods=[method],
                    response_model=None,  # plain JSON: pydantic 1 and 2 differ
                    summary=answer.__doc__,
                    tags=["Hypernetworks"],
                    openapi_extra={"parameters": parameters},
                )

        for path, action in card_actions.ACTIONS.items():
            if start + PREFIX + path not in known:
                app.add_api_route(
                    start + PREFIX + path,
                    _action(app, accounts, action),
                    methods=["POST"],
                    response_model=None,
                    summary=action.__doc__,
                    tags=["Hypernetworks"],
                    openapi_extra={"parameters": [_NAME]},
                )
    if shims.needs_route(app):
        app.add_api_route(
            shims.ROUTE,
            _endpoint(app, accounts, shims.list_as_the_webui_does),
            methods=["GET"],
            response_model=None,
            summary=shims.list_as_the_webui_does.__doc__,
            tags=["Hypernetworks"],
        )


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
        about["problem"] = about["problem"] and _without_folders(about["problem"])
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


def _endpoint(
    app: Any, accounts: dict[str, str] | None, answer: Callable[[Request], Any]
) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        if not _may_enter(app, accounts, request):
            return _refusal(request)
        try:
            answered = answer(request)
            return answered if isinstance(answered, Response) else JSONResponse(_plain(answered))
        except HypernetworkError as error:
            return JSONResponse({"error": _without_folders(str(error))}, status_code=_status(error))

    return endpoint


def _action(
    app: Any, accounts: dict[str, str] | None, action: card_actions.Action
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that changes something: it wants a header that no other site's page can send."""

    def answer(request: Request, body: bytes) -> Response:
        asked = dict(request.query_params)
        try:
            entry = folders.library().find(asked.get("name", ""))
            return JSONResponse(_plain(action(entry, asked, body)))
        except HypernetworkError as error:
            return JSONResponse({"error": _without_folders(str(error))}, status_code=_status(error))

    async def endpoint(request: Request) -> Response:
        if not _may_enter(app, accounts, request):
            return _refusal(request)
        if HEADER not in request.headers:
            return JSONResponse({"error": f"send the header {HEADER}: 1"}, status_code=403)

        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > card_actions.LARGEST_BODY:
                return JSONResponse({"error": "the image is too large"}, status_code=413)
        return await run_in_threadpool(answer, request, bytes(body))

    return endpoint


def _status(error: HypernetworkError) -> int:
    if isinstance(error, AmbiguousNameError):
        return 409
    return 404 if isinstance(error, NameLookupError) else 422


def _without_folders(text: str) -> str:
    """Messages name files by their path; who asks over the network sees them from the library's
    folders on.
    """
    for folder in folders.library().folders:
        text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), folder.name)
    return text


def _plain(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks and damaged networks have as norms, by
    ``null``.
    """
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (int, float, type(None))) else sound(str(value))


def _may_enter(app: Any, accounts: dict[str, str] | None, request: Request) -> bool:
    """Allow users who are logged in to the page or the API; everybody if neither has a login."""
    page_is_open = (
        getattr(app, "auth", None) is None and getattr(app, "auth_dependency", None) is None
    )
    if page_is_open and accounts is None:
        return True
    return (not page_is_open and _has_session(app, request)) or _has_password(
        accounts or {}, request
    )


def _has_session(app: Any, request: Request) -> bool:
    """Whether a cookie of gradio's holds a token that it gave out; only the cookies' names differ
    by version.
    """
    if (ask := getattr(app, "auth_dependency", None)) is not None:
        return ask(request) is not None
    tokens = getattr(app, "tokens", None) or {}
    cookies = (value for name, value in request.cookies.items() if name.startswith("access-token"))
    return any(tokens.get(value) is not None for value in cookies)


def _has_password(accounts: dict[str, str], request: Request) -> bool:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    # Compared in constant time, so that nobody can guess a password letter by letter.
    expected = accounts.get(user)
    return expected is not None and secrets.compare_digest(password.encode(), expected.encode())


def api_accounts() -> dict[str, str] | None:
    """Passwords by user; ``None`` if the API has no login.

    From ``--api-auth``; SD.Next has ``--auth`` and ``--auth-file`` instead, which serve the page,
    too, and takes blanks and quotes off them.
    """
    from modules import shared

    option = getattr(shared.cmd_opts, "api_auth", None)
    pairs = option.split(",") if option else []
    more = getattr(shared.cmd_opts, "auth", None)
    lines = more.split(",") if more else []
    if path := getattr(shared.cmd_opts, "auth_file", None):
        lines += Path(path).read_text(encoding="utf8").splitlines()
    pairs += [
        ":".join(part.strip() for part in line.replace('"', "").split(":", 1)) for line in lines
    ]
    if not pairs:
        return None
    return {
        user: password for user, colon, password in (pair.partition(":") for pair in pairs) if colon
    }


def _refusal(request: Request) -> Response:
    """Asks for the password, but not in the midst of a page: its script would make the browser open
    a window.
    """
    headers = (
        {"WWW-Authenticate": "Basic"} if request.headers.get("sec-fetch-dest") != "empty" else {}
    )
    return JSONResponse({"error": "log in first"}, status_code=401, headers=headers)
