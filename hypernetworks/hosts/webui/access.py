"""Who may ask our routes, and how they answer: errors as JSON, no paths outside the library's
folders, nothing changed for the pages of other sites.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...errors import AmbiguousNameError, HypernetworkError, NameLookupError
from . import folders
from .cards_tab.cards import sound

PREFIX = "/hypernetworks/v1"
HEADER = "x-hypernetworks"
"""Of requests that change something. A form or a link on another site can't send it."""
LARGEST_BODY = 64 << 20
"""Bytes of an image that is sent as a preview."""
Accounts = dict[str, str] | None
"""Passwords of the API by user; ``None`` where it has no login."""


class Routes:
    """Adds routes to the webui's application; one that it has already is left alone.

    Args:
        app: the FastAPI application; gradio's own, which knows who is logged in, or a plain one
            with ``--nowebui``.
    """

    def __init__(self, app: Any) -> None:
        from modules import shared

        self.app, self._accounts = app, api_accounts()
        self._known = {getattr(route, "path", None) for route in app.routes}
        # SD.Next's; the others leave it to the server.
        subpath = str(getattr(shared.opts, "subpath", None) or "")
        self._starts = list(dict.fromkeys(("", subpath)))

    def reading(self, path: str, answer: Callable[[Request], Any], *names: str) -> None:
        """Add a GET.

        Args:
            path: below :data:`PREFIX`.
            answer: its docstring is the summary; what it returns is sent as JSON.
            names: of required parameters.
        """
        self.add(PREFIX + path, "GET", _reading(self.app, self._accounts, answer), answer, names)

    def posting(self, path: str, answer: Callable[[Request], Any]) -> None:
        """Add a POST that changes nothing on the disk."""
        self.add(PREFIX + path, "POST", _reading(self.app, self._accounts, answer), answer)

    def changing(self, path: str, answer: Callable[[Request, bytes], Any], *names: str) -> None:
        """Add a POST that wants a header which no other site's page can send."""
        self.add(PREFIX + path, "POST", _changing(self.app, self._accounts, answer), answer, names)

    def add(
        self,
        path: str,
        method: str,
        endpoint: Callable[..., Any],
        answer: Callable[..., Any],
        names: tuple[str, ...] = (),
    ) -> None:
        """Add an endpoint under each prefix of the webui's."""
        parameters = [
            {"name": name, "in": "query", "required": True, "schema": {"type": "string"}}
            for name in names
        ]

        for start in self._starts:
            if start + path in self._known:
                continue
            self.app.add_api_route(
                start + path,
                endpoint,
                methods=[method],
                response_model=None,  # plain JSON: pydantic 1 and 2 differ
                summary=answer.__doc__,
                tags=["Hypernetworks"],
                openapi_extra={"parameters": parameters},
            )

    def read_only(self, answer: Callable[[Request], Any]) -> Callable[[Request], Response]:
        """The endpoint of a GET, for a route with a path of its own."""
        return _reading(self.app, self._accounts, answer)


def _reading(
    app: Any, accounts: Accounts, answer: Callable[[Request], Any]
) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        if not _may_enter(app, accounts, request):
            return _refusal(request)
        try:
            answered = answer(request)
            return answered if isinstance(answered, Response) else JSONResponse(_plain(answered))
        except HypernetworkError as error:
            return JSONResponse({"error": without_folders(str(error))}, status_code=_status(error))

    return endpoint


def _changing(
    app: Any, accounts: Accounts, answer: Callable[[Request, bytes], Any]
) -> Callable[[Request], Awaitable[Response]]:
    def answered(request: Request, body: bytes) -> Response:
        try:
            return JSONResponse(_plain(answer(request, body)))
        except HypernetworkError as error:
            return JSONResponse({"error": without_folders(str(error))}, status_code=_status(error))

    async def endpoint(request: Request) -> Response:
        if not _may_enter(app, accounts, request):
            return _refusal(request)
        if HEADER not in request.headers:
            return JSONResponse({"error": f"send the header {HEADER}: 1"}, status_code=403)

        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                return JSONResponse({"error": "the image is too large"}, status_code=413)
        return await run_in_threadpool(answered, request, bytes(body))

    return endpoint


def _status(error: HypernetworkError) -> int:
    if isinstance(error, AmbiguousNameError):
        return 409
    return 404 if isinstance(error, NameLookupError) else 422


def without_folders(text: str) -> str:
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


def _may_enter(app: Any, accounts: Accounts, request: Request) -> bool:
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


def api_accounts() -> Accounts:
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
        with Path(path).open(encoding="utf8") as file:  # by newlines alone, as SD.Next does
            lines += [line.rstrip("\n") for line in file]
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
