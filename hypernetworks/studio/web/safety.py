"""Who may talk to the page: an ASGI middleware that knows its own address, and keeps the browser to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
LARGEST_BODY = 8 << 20
"""Bytes that a request may hold, since they are kept in memory; the longest prompt is a small part of that."""
UPLOADS = ("/gradio_api/upload", "/hypernetworks/v1/add")
"""Routes that take files, go to the disk piece by piece, and have limits of their own."""
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


def refusal(headers: Mapping[str, str], *, anywhere: bool) -> str | None:
    """Why a request is refused, or ``None``.

    A page of another site may make a browser send requests here, and may even take our address for its own name (DNS
    rebinding): the first shows in ``Origin``, the second in ``Host``.

    Args:
        headers: with lower-case names.
        anywhere: the studio listens on all interfaces, so it can't know its own names.
    """
    host = headers.get("host", "")
    if not anywhere and _name(host) not in LOOPBACK:
        return "this page answers to its own address only: open it as http://127.0.0.1"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return "a page of another site can't use this one"
    if (
        headers.get("sec-fetch-site") == "cross-site"
        and headers.get("sec-fetch-mode") != "navigate"
    ):
        return "a page of another site can't use this one"
    return None


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class OwnAddressOnly:
    """Refuses what :func:`refusal` finds, and lets no answer make the browser load anything from elsewhere.

    Args:
        app: what answers the others.
        anywhere: see :func:`refusal`.
    """

    def __init__(self, app: App, anywhere: bool = False) -> None:
        self.app, self.anywhere = app, anywhere

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        reason = refusal(headers, anywhere=self.anywhere)
        if reason is None:
            is_upload = str(scope["path"]).rstrip("/").endswith(UPLOADS)
            await self.app(scope, receive if is_upload else _limited(receive), _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            kind = (b"content-type", b"text/plain; charset=utf-8")
            await send({"type": "http.response.start", "status": 403, "headers": [kind]})
            await send({"type": "http.response.body", "body": reason.encode()})


def _limited(receive: Receive) -> Receive:
    """Ends the reading of a request that is larger than it may be."""
    size = 0

    async def wrapped() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b"")) if message["type"] == "http.request" else 0
        if size > LARGEST_BODY:
            raise HTTPException(413, f"a request holds at most {LARGEST_BODY >> 20} MiB")
        return message

    return wrapped


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *_HEADERS]
        await send(message)

    return wrapped
