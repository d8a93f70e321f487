"""The gate before gradio: the routes that the page needs, payloads that were looked at, and a
session's own files.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

from . import limits
from .bodies import pieces, receive_files, timed
from .payloads import checked_call, checked_words, endpoints, parsed, written
from .safety import App, Message, Receive, Send
from .sessions import Unread
from .uploads import Uploads, is_regular

OWNER = "hypernetworks.owner"
"""Key of the ASGI scope that says whose request it is."""
_API = "/gradio_api"
_NAME = r"[A-Za-z0-9_]{1,80}"
_HASH = r"[A-Za-z0-9_-]{1,64}"
ROUTES = (
    ("GET", r"/", "page"),
    ("HEAD", r"/", "plain"),
    ("GET", r"/config/?", "plain"),
    ("GET", rf"{_API}/(info|app_id)/?", "plain"),
    ("GET", rf"{_API}/startup-events", "plain"),
    ("GET", rf"({_API})?/theme\.css", "plain"),
    ("GET", r"/(static|assets|svelte)/.*", "plain"),
    ("GET", r"/(favicon\.ico|robots\.txt|manifest\.json)", "plain"),
    ("GET", r"/hypernetworks/files/.*", "plain"),
    (
        "GET",
        r"/hypernetworks/v1/(list|preview|fits|now|images?|images/zip|runs|runs/preview|sheet(/cell|/file)?)",
        "plain",
    ),
    ("POST", r"/hypernetworks/v1/(tokens|seen|images/(star|discard))", "plain"),
    ("POST", r"/hypernetworks/v1/runs/(keep|continue|discard|reveal)", "plain"),
    ("POST", r"/hypernetworks/v1/card/(tags|preview|rename|discard|reveal)", "plain"),
    ("POST", r"/hypernetworks/v1/refresh", "plain"),
    ("POST", r"/hypernetworks/v1/add", "plain"),
    ("GET", rf"{_API}/heartbeat/{_HASH}", "window"),
    ("GET", rf"{_API}/queue/(data|status)", "plain"),
    ("GET", rf"{_API}/call/{_NAME}/{_HASH}", "plain"),
    ("GET", rf"{_API}/upload_progress", "progress"),
    ("GET", rf"{_API}/file=(?P<path>.*)", "file"),
    ("HEAD", rf"{_API}/file=(?P<path>.*)", "file"),
    ("POST", rf"{_API}/(run|api|call)/(?P<name>{_NAME})/?", "call"),
    ("POST", rf"{_API}/queue/join", "call"),
    ("POST", rf"{_API}/cancel", "cancel"),
    ("POST", rf"{_API}/reset/?", "reset"),
    ("POST", rf"{_API}/upload", "upload"),
)
"""Method, path and kind of every request that goes on; all others of gradio's routes don't exist
here.
"""
_PATTERNS = tuple((method, re.compile(path, re.DOTALL), kind) for method, path, kind in ROUTES)


class PageGate:
    """Lets gradio have what its page needs, and answers the rest itself.

    Args:
        app: the page and our own routes.
        page: gradio's, already mounted.
        folder: gradio's cache.
    """

    def __init__(self, app: App, page: Any, folder: Path) -> None:
        self.app, self._page = app, page
        folder.mkdir(parents=True, exist_ok=True)
        self.uploads = Uploads(folder.resolve())
        self.unread = Unread(page._queue)
        self._functions = endpoints(page)
        self._secret = secrets.token_bytes(32)
        self._cookie = f"hypernetworks_session_{secrets.token_hex(4)}"
        self._busy: Counter[str] = Counter()
        self._sending: set[str] = set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        else:
            try:
                await self._answer(scope, receive, send)
            except HTTPException as error:
                answer = PlainTextResponse(error.detail, error.status_code)
                answer.headers["connection"] = "close"  # the rest of a body is not read
                await answer(scope, receive, send)

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        kind, found = _route(scope["method"], scope["path"])
        if "deep_link" in (query := _query(scope)) and query["deep_link"] != [""]:
            raise HTTPException(404, "deep links are off")

        owner = scope[OWNER] = self._owner(scope)
        if kind == "upload":
            with self._at_once(owner, "upload", limits.MOST_UPLOADS, limits.MOST_UPLOADS_IN_ALL):
                await self._upload(scope, receive, send, query)
        elif kind in ("call", "cancel", "reset"):
            with self._at_once(owner, "call", limits.MOST_CALLS, limits.MOST_CALLS_IN_ALL):
                await self._call(scope, receive, send, (kind, found.get("name")))
        elif kind == "window":
            await self._window(scope, receive, send)
        elif kind == "progress":
            await self._progress(scope, receive, send, query)
        else:
            if kind == "file":
                self._check_file(owner, found["path"])
            if kind == "page" and owner.startswith("address "):
                send = self._with_cookie(send)
            await self.app(scope, timed(receive), send)

    # ------------------------------------------------------------------ whose it is

    def _owner(self, scope: Message) -> str:
        """The browser that got a cookie from the page, else the address: scripts keep no
        cookies.
        """
        headers = dict(scope["headers"])
        try:
            cookies = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
        except CookieError:
            cookies = SimpleCookie()
        if self._cookie in cookies:
            name, _, mark = cookies[self._cookie].value.partition(".")
            if hmac.compare_digest(mark.encode(), self._mark(name).encode()):
                return f"browser {name}"
        return f"address {(scope.get('client') or ['?'])[0]}"

    def _mark(self, name: str) -> str:
        return hmac.new(self._secret, name.encode(), sha256).hexdigest()

    def _with_cookie(self, send: Send) -> Send:
        name = secrets.token_hex(16)
        value = f"{self._cookie}={name}.{self._mark(name)}; HttpOnly; SameSite=Strict; Path=/"

        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), (b"set-cookie", value.encode())]
                message["headers"] = [*headers, (b"cache-control", b"no-store")]
            await send(message)

        return wrapped

    # ------------------------------------------------------------------ how much at once

    @contextmanager
    def _at_once(self, owner: str, kind: str, most: int, most_in_all: int) -> Iterator[None]:
        keys = (f"{kind} {owner}", kind)
        if self._busy[keys[0]] >= most or self._busy[keys[1]] >= most_in_all:
            raise HTTPException(429, "too many requests at once: wait for the others")
        self._busy.update(keys)
        try:
            yield
        finally:
            self._busy.subtract(keys)
            if not self._busy[keys[0]]:
                del self._busy[keys[0]]

    def _check_queue(self, owner: str) -> None:
        waiting = list(self._page._queue.event_ids_to_events.values())
        own = sum(event.request.scope.get(OWNER) == owner for event in waiting)
        if own >= limits.MOST_QUEUED or len(waiting) >= limits.MOST_QUEUED_IN_ALL:
            raise HTTPException(429, "too many jobs are waiting: try again when some are done")

    def _check_unread(self, session: str | None) -> None:
        self.unread.sweep()
        if self.unread.count(session) >= limits.MOST_UNREAD:
            raise HTTPException(
                429, "read the results of this session's jobs before you ask for more"
            )

    # ------------------------------------------------------------------ what comes in

    async def _call(
        self, scope: Message, receive: Receive, send: Send, what: tuple[str, str | None]
    ) -> None:
        kind, name = what
        body = bytearray()
        async for piece in pieces(receive, limits.LARGEST_PAYLOAD):
            body += piece
        content, owner = parsed(bytes(body)), scope[OWNER]

        if kind == "call":
            self._check_queue(owner)
            content = checked_call(
                content, self._functions, name, lambda path: self.uploads.holds(owner, path)
            )
            self._check_unread(content["session_hash"])
        elif kind == "cancel":
            content = checked_words(content, "session_hash", "fn_index", "event_id")
        else:
            content = checked_words(content, "event_id")
        if kind == "call" and scope["path"].startswith(f"{_API}/call/"):
            # the number of the function is not part of it there: the name has found it
            content = {"data": content["data"], "session_hash": content["session_hash"]}

        await self.app(*_replaced(scope, receive, written(content)), send)

    async def _upload(
        self, scope: Message, receive: Receive, send: Send, query: dict[str, list[str]]
    ) -> None:
        number = query.get("upload_id", [""])[0][:64]
        self._sending.add(number)
        try:
            kind = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
            paths = await receive_files(receive, kind, self.uploads, scope[OWNER])
        finally:
            self._sending.discard(number)
        await JSONResponse(paths)(scope, receive, send)

    async def _progress(
        self, scope: Message, receive: Receive, send: Send, query: dict[str, list[str]]
    ) -> None:
        """Tell the page when an upload is done; how far it is, its browser knows."""
        number = query.get("upload_id", [""])[0][:64]

        async def told() -> Any:
            for _ in range(20):  # the two requests may come in any order
                if number in self._sending:
                    break
                await asyncio.sleep(0.05)
            while number in self._sending:
                await asyncio.sleep(0.1)
            yield 'data: {"msg": "done"}\n\n'

        await StreamingResponse(told(), media_type="text/event-stream")(scope, receive, send)

    async def _window(self, scope: Message, receive: Receive, send: Send) -> None:
        """A page is open as long as this connection; its uploads go some time afterwards."""
        try:
            with self.uploads.window(scope[OWNER]):
                await self.app(scope, receive, send)
        finally:
            asyncio.get_running_loop().call_later(limits.CLOSED + 1, self.uploads.sweep)

    # ------------------------------------------------------------------ what goes out

    def _check_file(self, owner: str, path: str) -> None:
        """Nothing but regular files of the cache, under their own names, and no other session's
        uploads.
        """
        try:
            found = Path(path)
            is_inside = (
                found.is_absolute()
                and ".." not in found.parts
                and found.resolve() == found
                and found.is_relative_to(self.uploads.folder)
            )
        except (OSError, ValueError, RuntimeError):
            is_inside = False

        if not (is_inside and is_regular(Path(path)) and self.uploads.may_see(owner, path)):
            raise HTTPException(403, "this file is not given out")


def _route(method: str, path: str) -> tuple[str, dict[str, str]]:
    for allowed, pattern, kind in _PATTERNS:
        if allowed == method and (match := pattern.fullmatch(path)):
            return kind, match.groupdict()
    raise HTTPException(404, "there is nothing here")


def _query(scope: Message) -> dict[str, list[str]]:
    try:
        text = scope.get("query_string", b"").decode("latin-1")
        return parse_qs(text, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise HTTPException(400, "the address is malformed") from None


def _replaced(scope: Message, receive: Receive, body: bytes) -> tuple[Message, Receive]:
    """A request with another body in its place."""
    kept = [(n, v) for n, v in scope["headers"] if n not in _OF_BODY]
    headers = [
        *kept,
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    is_sent = False

    async def wrapped() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return {**scope, "headers": headers}, wrapped


_OF_BODY = {b"content-type", b"content-length", b"transfer-encoding", b"content-encoding"}
