"""A real studio in a process of its own, watched from outside: hostile payloads, and too much of
everything.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hardening import floods, payloads
from hardening.served import Studio

pytest.importorskip("gradio")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches through /proc")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with Studio(tmp_path_factory.mktemp("studio").resolve()) as studio:
        yield studio


def test_no_payload_brings_a_secret_back(studio: Studio) -> None:
    outcome = payloads.run(studio, 60, seed=7)
    assert outcome.broken == []
    assert sum(outcome.statuses.values()) == 60
    assert outcome.statuses["404"] < 50  # most cases have to get as far as the check of payloads
    assert {"403", "422"} <= outcome.statuses.keys()


def test_a_large_field_and_many_files_are_refused_and_take_no_memory(studio: Studio) -> None:
    field = floods.large_field(studio, 100)
    assert (field.statuses, field.more < 40) == ({413: 1}, True), field
    files = floods.many_files(studio, 1_001)
    assert (files.statuses, files.more < 40) == ({413: 1}, True), files


def test_a_queue_has_an_end(studio: Studio) -> None:
    queued = floods.many_jobs(studio, 90)
    assert queued.statuses.get(429, 0) >= 20, queued  # the others were made meanwhile
    assert set(queued.statuses) <= {200, 429}
    assert studio.is_alive()
