"""A password for the page and everything behind it: a form for browsers, HTTP's own way for
scripts.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import secrets
from collections import deque
from collections.abc import Mapping
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from time import monotonic
from urllib.parse import parse_qs

from .safety import App, Message, Receive, Send

LOGIN = "/hypernetworks/login"
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""Without characters that are taken for one another."""
PAUSE = 1.0
"""Seconds that a wrong password waits for its answer, one after the other."""
MOST_WAITING = 20
"""Logins that wait for that; more are sent away."""
MOST_WRONG, MINUTE = 100, 60.0
"""Wrong passwords that one address may send within so many seconds; then none is compared, the
right one included.
"""
MOST_ADDRESSES = 1_000
"""Addresses whose wrong passwords are remembered; the one that was quiet for longest is forgotten
first.
"""
LARGEST_FORM = 4096
_HTML, _TEXT = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-type", b"text/plain; charset=utf-8"),
)
_FOR_SCRIPTS = (
    "this page needs a password: log in on the page, or send it with HTTP Basic and any user name"
)


def new_password() -> str:
    """A password of about 59 bits that can be read out and typed."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(4)) for _ in range(3))


class Guesses:
    """How many wrong passwords each address has sent within the last :data:`MINUTE`.

    Bounded, whoever sends them.
    """

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}

    def are_too_many(self, address: str) -> bool:
        """Whether another one of this address is not to be compared."""
        times = self._times.get(address)
        if not times:
            return False
        if monotonic() - times[-1] >= MINUTE:
            del self._times[address]
            return False
        return len(times) >= MOST_WRONG and monotonic() - times[0] < MINUTE

    def add(self, address: str) -> None:
        """Remember a wrong one."""
        times = self._times.pop(address, None)
        if times is None:
            times = deque(maxlen=MOST_WRONG)
        times.append(monotonic())
        self._times[address] = times  # at the end: the first is the one that was quiet for longest
        if len(self._times) > MOST_ADDRESSES:
            del self._times[next(iter(self._times))]


class PasswordGate:
    """Lets those through who have the password, and asks the others for it.

    A browser gets a cookie that holds as long as the studio runs. A wrong password waits for its
    answer, and an address that sends too many in a minute gets none compared.

    Args:
        app: what answers those who are let in.
        password: of one user, or of all.
    """

    def __init__(self, app: App, password: str) -> None:
        self.app = app
        self._password = sha256(password.encode()).digest()
        self._cookie = (
            f"hypernetworks_{secrets.token_hex(4)}"  # the cookies of a machine know no ports
        )
        self._ticket = secrets.token_urlsafe(32)
        self._one_guess, self._waiting = asyncio.Lock(), 0
        self._guesses = Guesses()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        address = str((scope.get("client") or ["?"])[0])
        right = self._has_ticket(headers) or await self._has_basic(headers, address)

        if right:
            await self.app(scope, receive, send)
        elif right is None and scope["type"] == "http":
            await _answer(send, 429, "too many wrong passwords: wait a minute", _TEXT)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif (scope["method"], scope["path"]) == ("POST", LOGIN):
            await self._log_in(receive, send, address)
        elif scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            await _answer(send, 401, _form(""), _HTML)
        else:
            await _answer(send, 401, _FOR_SCRIPTS, _TEXT)

    def _has_ticket(self, headers: Mapping[str, str]) -> bool:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return morsel is not None and hmac.compare_digest(
            morsel.value.encode(), self._ticket.encode()
        )

    async def _has_basic(self, headers: Mapping[str, str], address: str) -> bool | None:
        """See :meth:`_is_right`."""
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            word = base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
        return await self._is_right(word, address)

    async def _is_right(self, word: str, address: str) -> bool | None:
        """Whether it is the password; ``None`` when this address guesses too often, or too many
        guesses wait already.

        The right one is never kept waiting by those who guess from elsewhere.
        """
        if self._guesses.are_too_many(address):
            return None
        if hmac.compare_digest(sha256(word.encode()).digest(), self._password):
            return True

        self._guesses.add(address)
        if self._waiting >= MOST_WAITING:
            return None

        self._waiting += 1
        try:
            async with self._one_guess:
                await asyncio.sleep(PAUSE)
            return False
        finally:
            self._waiting -= 1

    async def _log_in(self, receive: Receive, send: Send, address: str) -> None:
        body = await _body(receive)
        word = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True).get(
            "password", [""]
        )[0]
        right = await self._is_right(word, address)

        if right:
            cookie = f"{self._cookie}={self._ticket}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(
                send, 303, "", _TEXT, (b"location", b"/"), (b"set-cookie", cookie.encode())
            )
        elif right is None:
            await _answer(send, 429, _form("Too many wrong passwords: wait a minute."), _HTML)
        else:
            await _answer(send, 401, _form("That is not the password."), _HTML)


async def _body(receive: Receive) -> bytes:
    """What a form sends; the end of one that is too large is left away."""
    body, more = b"", True
    while more and len(body) < LARGEST_FORM:
        message = await receive()
        body += message.get("body", b"")
        more = bool(message.get("more_body", False))
    return body[:LARGEST_FORM]


async def _answer(send: Send, status: int, content: str, *headers: tuple[bytes, bytes]) -> None:
    kept = [*headers, (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": kept})
    await send({"type": "http.response.body", "body": content.encode()})


def _form(problem: str) -> str:
    """The page that asks; without its own referrer policy, the browser would send its answer from
    nowhere ("null").
    """
    said = (
        f'<p role="alert">{problem}</p>'
        if problem
        else "<p>The studio's terminal shows the password.</p>"
    )

    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<title>Hypernetworks studio</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="same-origin"><style>{_STYLE}</style>
<form method="post" action="{LOGIN}"><h1>Hypernetworks studio</h1>{said}
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password"
 required autofocus>
<button>Log in</button></form></html>"""


_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { display: grid; margin: 0; min-height: 100vh; place-items: center; }
form { box-sizing: border-box; display: grid; gap: .6em; max-width: 22em; padding: 1.5em; }
form { width: 100%; }
h1 { font-size: 1.35rem; font-weight: 650; margin: 0; }
p { color: light-dark(#5b6472, #a3acb9); margin: 0; }
p[role=alert] { color: light-dark(#b91c1c, #fca5a5); }
input, button { border: 1px solid #8889; border-radius: 6px; font: inherit; padding: .5em .7em; }
button { background: #4f46e5; border-color: #4f46e5; color: #fff; cursor: pointer; }
:is(input, button):focus-visible { outline: 2px solid #6366f1; outline-offset: 2px; }
"""
