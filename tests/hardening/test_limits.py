"""Each limit on how much is kept and done at once: up to it all is taken, and beyond it nothing."""

from __future__ import annotations

import asyncio
import http.client
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hardening.served import PASSES
from starlette.exceptions import HTTPException

from hypernetworks.studio.unfinished import Unfinished
from hypernetworks.studio.web import bodies, limits, payloads, uploads

pytest.importorskip("gradio")
OWN = "http://127.0.0.1:7870"
FORM = "multipart/form-data; boundary=x"


@pytest.fixture
def client(gate: Any) -> Iterator[TestClient]:
    with TestClient(gate, base_url=OWN) as client:
        client.get("/")
        yield client


def upload(client: TestClient, size: int) -> int:
    sent = client.post("/gradio_api/upload", files={"files": ("a.png", b"x" * size)})
    return sent.status_code


# ------------------------------------------------------------------ what is kept


def test_a_session_keeps_only_so_much(
    gate: Any, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_KEPT", 10_000)
    assert upload(client, 9_000) == 200
    before = len(list(gate.uploads.folder.iterdir()))
    assert upload(client, 2_000) == 413
    assert len(list(gate.uploads.folder.iterdir())) == before
    with TestClient(gate, base_url=OWN) as other:
        other.get("/")
        assert upload(other, 2_000) == 200
    monkeypatch.setattr(limits, "MOST_KEPT", 9_000)
    assert upload(client, 1) == 429


def test_all_sessions_keep_only_so_much(
    gate: Any, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = sum(sum(one.files.values()) for one in gate.uploads._sessions.values())
    monkeypatch.setattr(limits, "MOST_KEPT_IN_ALL", kept + 10_000)
    assert upload(client, 9_000) == 200
    with TestClient(gate, base_url=OWN) as other:
        other.get("/")
        assert upload(other, 2_000) == 413
        monkeypatch.setattr(limits, "MOST_KEPT_IN_ALL", kept + 9_000)
        assert upload(other, 1) == 429


def test_uploads_at_the_same_time_keep_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_KEPT", 1_000)
    kept = uploads.Uploads(tmp_path)
    form = b'--x\r\ncontent-disposition: form-data; name="files"; filename="a"\r\n\r\n'

    async def receive() -> dict[str, Any]:
        kept.add("one", {str(tmp_path / "b" / "b"): 900})  # another one is whole meanwhile
        return {"type": "http.request", "body": form + bytes(500) + b"\r\n--x--\r\n"}

    with pytest.raises(HTTPException) as caught:
        asyncio.run(bodies.receive_files(receive, FORM, kept, "one"))
    assert caught.value.status_code == 413
    assert list(tmp_path.rglob("a")) == []
    assert kept.room("one") == 100


def test_there_are_only_so_many_sessions_with_uploads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_SESSIONS", 1)
    kept = uploads.Uploads(tmp_path)
    for number in range(10):
        kept.add(f"session {number}", {})
    kept.add("session 3", {})
    with pytest.raises(HTTPException) as caught:
        kept.add("one more", {})
    assert caught.value.status_code == 429


def test_a_list_has_only_so_many_values() -> None:
    for kind in ("choices", "files"):
        with pytest.raises(HTTPException) as caught:
            payloads._value([None] * (limits.MOST_VALUES + 1), kind, lambda _: True, [0])
        assert caught.value.status_code == 413
        assert payloads._value([None] * limits.MOST_VALUES, kind, lambda _: True, [0])


# ------------------------------------------------------------------ what is done at once


async def asked(gate: Any, path: str, address: str, end: asyncio.Event) -> int:
    """The status of a request whose body does not come, until its connection is closed."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        await end.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b""}
    scope |= {"headers": [(b"content-type", FORM.encode())], "client": (address, 1)}
    await gate(scope, receive, send)
    return statuses[0]


@pytest.mark.parametrize(
    ("path", "most", "most_in_all"),
    [
        ("/gradio_api/run/predict", limits.MOST_CALLS, limits.MOST_CALLS_IN_ALL),
        ("/gradio_api/queue/join", limits.MOST_CALLS, limits.MOST_CALLS_IN_ALL),
        ("/gradio_api/cancel", limits.MOST_CALLS, limits.MOST_CALLS_IN_ALL),
        ("/gradio_api/upload", limits.MOST_UPLOADS, limits.MOST_UPLOADS_IN_ALL),
    ],
)
def test_only_so_many_requests_at_once(gate: Any, path: str, most: int, most_in_all: int) -> None:
    async def scene() -> None:
        end = asyncio.Event()
        tasks: list[asyncio.Task[int]] = []

        async def begun(address: str) -> asyncio.Task[int]:
            task = asyncio.create_task(asked(gate, path, address, end))
            await asyncio.wait([task], timeout=0.02)
            tasks.append(task)
            return task

        for _ in range(most):
            assert not (await begun("10.0.0.1")).done()
        one_more = await begun("10.0.0.1")
        assert one_more.done()
        assert one_more.result() == 429
        for number in range(most, most_in_all):
            assert not (await begun(f"10.0.1.{number}")).done()
        of_another = await begun("10.0.2.1")
        assert of_another.done()
        assert of_another.result() == 429
        end.set()
        statuses = await asyncio.gather(*tasks)
        assert sorted(statuses) == [400] * most_in_all + [429] * 2
        assert await asked(gate, path, "10.0.0.1", end) == 400  # there is room again

    asyncio.run(scene())


def test_only_so_many_jobs_wait(
    gate: Any, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, owner = gate._page._queue, "address testclient"

    def waiting(own: int, others: int) -> None:
        names = [owner] * own + ["somebody"] * others
        events = {
            str(i): SimpleNamespace(request=SimpleNamespace(scope={"hypernetworks.owner": name}))
            for i, name in enumerate(names)
        }
        monkeypatch.setattr(queue, "event_ids_to_events", events)

    most, most_in_all = limits.MOST_QUEUED, limits.MOST_QUEUED_IN_ALL
    for own, others in ((most - 1, 0), (0, most_in_all - 1), (most - 1, most_in_all - most)):
        waiting(own, others)
        gate._check_queue(owner)
    for own, others in ((most, 0), (0, most_in_all), (most - 1, most_in_all - most + 1)):
        waiting(own, others)
        with pytest.raises(HTTPException) as caught:
            gate._check_queue(owner)
        assert caught.value.status_code == 429
    waiting(0, most_in_all)  # full for everybody
    body = {"data": ["x", "", 1, 1, 1, None, 1, 64, 64, *PASSES]}
    assert client.post("/gradio_api/call/generate", json=body).status_code == 429


async def quick(scope: Any, _receive: Any, send: Any) -> None:
    """An application that answers everything at once."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})


def test_only_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    from hypernetworks.studio.web import server

    monkeypatch.setattr(limits, "MOST_CONNECTIONS", 4)
    log = logging.getLogger("uvicorn.error")
    level, ending = log.level, list[int]()
    listener = server._listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    serving = threading.Thread(target=server._serve, args=(quick, listener, ending, Unfinished()))
    serving.start()

    def status() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status
        except OSError:  # it does not listen yet
            return 0
        finally:
            connection.close()

    def until(wanted: int) -> bool:
        end = time.monotonic() + 30
        while (found := status()) != wanted and time.monotonic() < end:
            time.sleep(0.02)
        return found == wanted

    try:
        assert until(200)
        idle = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(3)]
        time.sleep(0.2)  # they are there, and the fourth is answered
        assert until(200)
        idle.append(socket.create_connection(("127.0.0.1", port), 30))
        assert until(503)
        for one in idle:
            one.close()
        assert until(200)
    finally:
        ending.append(1)
        serving.join(30)
        listener.close()
        log.setLevel(level)
    assert not serving.is_alive()
