"""What gradio remembers of sessions that come and go stays within limits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hypernetworks.studio.web import limits

pytest.importorskip("gradio")


@pytest.fixture
def client(gate: Any) -> Iterator[TestClient]:
    with TestClient(gate, base_url="http://127.0.0.1:7870") as client:
        yield client


def join(gate: Any, client: TestClient, session: str) -> int:
    """Ask for a job that takes no time, and wait until it is done; nobody reads what it says."""
    number = next(n for n, one in gate._functions.items() if one.kinds == ("text",))
    body = {"data": ["x"], "fn_index": number, "session_hash": session}
    status = client.post("/gradio_api/queue/join", json=body).status_code
    until = time.monotonic() + 60
    while gate._page._queue.event_ids_to_events and time.monotonic() < until:
        time.sleep(0.005)
    return status


def sessions(gate: Any) -> tuple[set[str], set[str]]:
    queue = gate._page._queue
    return set(queue.pending_event_ids_session), set(queue.pending_messages_per_session)


def test_a_session_keeps_no_copy_of_the_page(gate: Any, client: TestClient) -> None:
    assert join(gate, client, "slim") == 200
    state = gate._page.state_holder["slim"]
    assert list(state.components) == []
    component = next(iter(state.blocks_config.blocks))
    state._update_config(component)  # what gradio does with every output
    state._update_value_in_config(component, "x" * 1000)
    assert list(state.components) == []
    assert len(state.config_values) == 0


def test_the_oldest_states_are_forgotten(gate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = gate._page.state_holder
    assert holder.capacity == limits.MOST_SESSIONS
    monkeypatch.setattr(holder, "capacity", 5)
    holder.session_data.clear()
    for number in range(8):
        assert holder[f"state{number}"].blocks_config.fns
    assert list(holder.session_data) == [f"state{number}" for number in range(3, 8)]


def test_sessions_whose_jobs_have_ended_are_forgotten(
    gate: Any, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        assert join(gate, client, name) == 200
    assert all({"one", "two"} <= known for known in sessions(gate))
    monkeypatch.setattr(limits, "CLOSED", 0.0)
    assert join(gate, client, "three") == 200
    assert all(known == {"three"} for known in sessions(gate))


def test_there_are_never_many_of_them(
    gate: Any, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_SESSIONS", 3)
    for number in range(10):
        assert join(gate, client, f"many{number}") == 200
    assert all(known == {f"many{n}" for n in (6, 7, 8, 9)} for known in sessions(gate))


def test_a_session_that_waits_for_its_job_is_kept(
    gate: Any, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = gate._page._queue
    assert join(gate, client, "works") == 200
    [event] = queue.pending_event_ids_session["works"]
    monkeypatch.setattr(limits, "CLOSED", 0.0)
    monkeypatch.setitem(queue.event_ids_to_events, event, object())
    gate.unread.sweep()
    assert all("works" in known for known in sessions(gate))
    monkeypatch.delitem(queue.event_ids_to_events, event)
    gate.unread.sweep()
    assert all("works" not in known for known in sessions(gate))


def test_who_reads_no_results_gets_no_more_jobs(
    gate: Any, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert join(gate, client, "deaf") == 200
    monkeypatch.setattr(limits, "MOST_UNREAD", gate.unread.count("deaf"))
    assert gate.unread.count("deaf") > 0
    assert join(gate, client, "deaf") == 429
    assert join(gate, client, "other") == 200
    told = client.get("/gradio_api/queue/data?session_hash=deaf").text
    assert "process_completed" in told
    assert join(gate, client, "deaf") == 200
