"""The password of the studio: nothing gets past it, and guessing takes time."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from hypernetworks.studio.web import login
from hypernetworks.studio.web.login import LOGIN, PasswordGate, new_password
from hypernetworks.studio.web.safety import OwnAddressOnly

WORD = "öpen sesame&=+"


class Visitor:
    """Sends requests through the gate to a page that says "inside"."""

    def __init__(self, **options: Any) -> None:
        self.gate = PasswordGate(self.inside, WORD)
        self.reached: list[str] = []
        self.app = OwnAddressOnly(self.gate, anywhere=True) if options.get("whole") else self.gate

    async def inside(self, scope: Any, _receive: Any, send: Any) -> None:
        self.reached.append(scope["path"])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"inside"})

    async def ask(
        self, path: str, method: str = "GET", body: bytes = b"", client: str = "a", **headers: str
    ) -> tuple[int, Any, str]:
        """Status (or a websocket's closing code), headers, body."""
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "websocket" if method == "WS" else "http",
            "method": method,
            "path": path,
            "client": (client, 1),
            "headers": [
                (name.encode(), value.encode())
                for name, value in {"host": "a:1", **headers}.items()
            ],
        }
        await self.app(scope, receive, send)
        if sent and sent[0]["type"] == "websocket.close":
            return sent[0]["code"], {}, ""
        return (
            (sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"].decode())
            if sent
            else (0, {}, "")
        )


def form(word: str) -> bytes:
    from urllib.parse import urlencode

    return urlencode({"password": word}).encode()


def basic(word: str) -> str:
    return "Basic " + base64.b64encode(f"any:{word}".encode()).decode()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "PAUSE", 0.001)


@pytest.mark.parametrize(
    "path", ["/", "/hypernetworks/v1/list", "/hypernetworks/files/x", "/gradio_api/info", LOGIN]
)
def test_nothing_is_given_without_the_password(path: str) -> None:
    visitor = Visitor()
    for method, headers in (
        ("GET", {}),
        ("GET", {"accept": "text/html"}),
        ("POST", {}),
        ("HEAD", {}),
        ("WS", {}),
        ("GET", {"cookie": "hypernetworks_00000000=x; ="}),
        ("GET", {"authorization": basic("wrong")}),
        ("GET", {"authorization": "Basic !!!"}),
        ("GET", {"authorization": f"Bearer {WORD}".encode().decode("latin-1")}),
    ):
        status = asyncio.run(visitor.ask(path, method, **headers))[0]
        assert status == (1008 if method == "WS" else 401), (method, headers)
    assert visitor.reached == []


def test_a_browser_logs_in_and_stays_in() -> None:
    async def story() -> None:
        visitor = Visitor(whole=True)
        status, _, page = await visitor.ask("/", accept="text/html,*/*")
        assert status == 401
        assert "<form" in page
        status, _, page = await visitor.ask(LOGIN, "POST", form("wrong"))
        assert (status, "not the password" in page) == (401, True)
        status, headers, _ = await visitor.ask(LOGIN, "POST", form(WORD))
        assert (status, headers[b"location"]) == (303, b"/")
        cookie, *attributes = headers[b"set-cookie"].decode().split("; ")
        assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
        assert WORD not in cookie
        for path, method in (("/", "GET"), ("/hypernetworks/v1/add", "POST"), ("/queue", "WS")):
            await visitor.ask(path, method, cookie=f"other=1; {cookie}")
        assert visitor.reached == ["/", "/hypernetworks/v1/add", "/queue"]
        assert (await Visitor().ask("/", cookie=cookie))[0] == 401  # a cookie of another run
        status, _, _ = await visitor.ask(LOGIN, "POST", form(WORD), origin="http://evil.example")
        assert status == 403

    asyncio.run(story())


def test_a_script_sends_it_with_each_request() -> None:
    visitor = Visitor()
    assert asyncio.run(visitor.ask("/x", authorization=basic(WORD)))[2] == "inside"


def test_guesses_are_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    at_once = [0]
    original = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        at_once[0] += 1
        assert at_once[0] == 1
        await original(0)
        at_once[0] -= 1

    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def story() -> list[int]:
        visitor = Visitor()
        answers = await asyncio.gather(
            *(visitor.ask(LOGIN, "POST", form(f"{i}")) for i in range(30))
        )
        return [status for status, _, _ in answers]

    statuses = asyncio.run(story())
    assert statuses.count(401) == len(pauses) == login.MOST_WAITING
    assert statuses.count(429) == 10


def test_passwords_that_are_made_up_differ() -> None:
    made = {new_password() for _ in range(100)}
    assert len(made) == 100
    assert all(len(word) == 14 for word in made)


def test_a_large_form_is_cut_off() -> None:
    assert asyncio.run(Visitor().ask(LOGIN, "POST", b"x" * 100_000 + form(WORD)))[0] == 401


def test_guesses_do_not_lock_out_who_has_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    never = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        await never.wait()

    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def story() -> None:
        visitor = Visitor()
        guesses = [
            asyncio.ensure_future(visitor.ask(LOGIN, "POST", form(f"{i}"))) for i in range(24)
        ]
        await asyncio.wait(guesses, timeout=0.5)
        assert sum(guess.done() for guess in guesses) == 24 - login.MOST_WAITING
        assert (await visitor.ask("/x", authorization=basic("wrong")))[0] == 429
        assert (await visitor.ask("/x", authorization=basic(WORD)))[2] == "inside"
        for guess in guesses:
            guess.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)

    asyncio.run(story())


def test_an_address_that_guesses_too_often_gets_no_more_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(login, "monotonic", lambda: now[0])
    monkeypatch.setattr(login, "MOST_WRONG", 5)

    async def story() -> None:
        visitor = Visitor()
        for i in range(5):
            assert (await visitor.ask(LOGIN, "POST", form(f"{i}"), client="10.0.0.1"))[0] == 401
        right = basic(WORD)
        assert (await visitor.ask("/x", client="10.0.0.1", authorization=right))[0] == 429
        assert (await visitor.ask(LOGIN, "POST", form(WORD), client="10.0.0.1"))[0] == 429
        assert visitor.reached == []
        assert (await visitor.ask("/x", client="10.0.0.2", authorization=right))[2] == "inside"
        now[0] += login.MINUTE
        assert (await visitor.ask("/x", client="10.0.0.1", authorization=right))[2] == "inside"

    asyncio.run(story())


def test_guesses_of_many_addresses_take_bounded_memory() -> None:
    guesses = login.Guesses()
    for _ in range(2 * login.MOST_WRONG):
        guesses.add("the loud one")
    for number in range(3 * login.MOST_ADDRESSES):
        guesses.add(f"10.{number}")
        guesses.add("the loud one")
    assert len(guesses._times) == login.MOST_ADDRESSES
    assert guesses.are_too_many("the loud one")
    assert max(map(len, guesses._times.values())) == login.MOST_WRONG
