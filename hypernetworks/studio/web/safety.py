"""Who may talk to the page: an ASGI middleware that knows its own address, and keeps the browser to
it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import cache
from ipaddress import ip_address
from typing import Any

from starlette.exceptions import HTTPException

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
LARGEST_BODY = 4 << 20
"""Bytes that a request may hold, since they are kept in memory; the longest prompt is a small part
of that.
"""
UPLOADS = ("/gradio_api/upload", "/hypernetworks/v1/add")
"""Routes that take files, go to the disk piece by piece, and have limits of their own."""
_HEADERS = (
    (
        b"content-security-policy",
        (
            b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors "
            b"'none'; "
            b"form-action 'self'"
        ),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


def refusal(
    headers: Mapping[str, str], *, anywhere: bool, only_addresses: bool = False
) -> str | None:
    """Why a request is refused, or ``None``.

    A page of another site may make a browser send requests here, and may even take our address for
    its own name (DNS rebinding): the first shows in ``Origin`` and ``Sec-Fetch-Site``, the second
    in ``Host``.

    Args:
        headers: with lower-case names.
        anywhere: the studio listens on all interfaces.
        only_addresses: without a password, names that someone else's DNS can give out are refused
            there, too.
    """
    host = headers.get("host", "")
    name = _name(host)
    if name is None:
        return "the Host header of the request is malformed"
    if not anywhere and name not in LOOPBACK:
        return "this page answers to its own address only: open it as http://127.0.0.1"
    if anywhere and only_addresses and not _is_ours(name):
        return "without a password this page answers to IP addresses and its own name only"

    origin = headers.get("origin")
    if origin is not None and origin.lower() not in (
        f"http://{host.lower()}",
        f"https://{host.lower()}",
    ):
        return "a page of another site can't use this one"

    site = headers.get("sec-fetch-site", "none")
    if site not in ("none", "same-origin") and not (
        site in ("same-site", "cross-site")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest", "document") == "document"
        and origin is None
    ):
        return "a page of another site can't use this one"
    return None


_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(\d{1,5}))?")


def _name(host: str) -> str | None:
    """The name in a Host header, in small letters; ``None`` where it is none."""
    match = _HOST.fullmatch(host)
    if match is None or int(match[2] or 0) > 65535:
        return None
    return match[1].strip("[]").lower()


def _is_ours(name: str) -> bool:
    """Whether a name is an IP address, this machine's own, or one that only the local network gives
    out.
    """
    try:
        ip_address(name)
    except ValueError:
        return name.rstrip(".").endswith(".local") or name in LOOPBACK | _machine_names()
    return True


@cache
def _machine_names() -> frozenset[str]:
    return frozenset(found.lower() for found in (socket.gethostname(), socket.getfqdn()) if found)


class OwnAddressOnly:
    """Refuses what :func:`refusal` finds, and lets no answer make the browser load anything from
    elsewhere.

    Args:
        app: what answers the others.
        anywhere, only_addresses: see :func:`refusal`.
    """

    def __init__(self, app: App, anywhere: bool = False, only_addresses: bool = False) -> None:
        self.app, self.anywhere, self.only_addresses = app, anywhere, only_addresses

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        reason = refusal(
            headers, anywhere=self.anywhere, only_addresses=self.only_addresses
        ) or _twice([name for name, _ in scope["headers"]])

        if reason is None:
            is_upload = str(scope["path"]).rstrip("/").endswith(UPLOADS)
            await self.app(scope, receive if is_upload else _limited(receive), _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            kind = (b"content-type", b"text/plain; charset=utf-8")
            await send({"type": "http.response.start", "status": 403, "headers": [kind]})
            await send({"type": "http.response.body", "body": reason.encode()})


def _twice(names: list[bytes]) -> str | None:
    """Two of a header that decides: a browser sends one, and which one counts would be a matter of
    taste.
    """
    for name in (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest"):
        if sum(one.lower() == name for one in names) > 1:
            return f"the request has more than one {name.decode()} header"
    return None


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
