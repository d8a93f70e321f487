"""Hashes of files: in the background, once for each state of a file, over restarts; and the thread
that does it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypernetworks.library import Entry
from hypernetworks.library.background import Background
from hypernetworks.library.hashing import Hashes, usual_store

ROOT = Path(__file__).parents[3]


def file(path: Path, content: bytes = b"content") -> Entry:
    """A file and its entry."""
    path.write_bytes(content)
    status = path.stat()
    return Entry(path.stem, path, "", status.st_size, status.st_mtime_ns)


def sha256(content: bytes) -> str:
    """What is expected."""
    return hashlib.sha256(content).hexdigest()


def eventually(true: Callable[[], object]) -> None:
    """Wait for what a thread will do."""
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came true")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read for their hash."""
    names: list[str] = []
    original = Entry.sha256

    def counted(entry: Entry, stopping: threading.Event | None = None) -> str:
        names.append(entry.name)
        return original(entry, stopping)

    monkeypatch.setattr(Entry, "sha256", counted)
    return names


def test_a_hash_is_computed_in_the_background_and_once(tmp_path: Path, computed: list[str]) -> None:
    entry, hashes = file(tmp_path / "a.pt"), Hashes()
    assert hashes.known(entry) is None
    for _ in range(3):
        hashes.start(entry)
    eventually(lambda: hashes.known(entry))
    assert hashes.known(entry) == hashes.sha256(entry) == sha256(b"content")
    assert computed == ["a"]


def test_a_file_that_changes_is_hashed_again(tmp_path: Path, computed: list[str]) -> None:
    entry, hashes = file(tmp_path / "a.pt"), Hashes()
    assert hashes.sha256(entry) == sha256(b"content")
    file(tmp_path / "a.pt", b"another")
    os.utime(entry.path, ns=(1, 1))
    assert hashes.known(entry) is None
    assert hashes.sha256(entry) == sha256(b"another")
    entry.path.unlink()
    assert hashes.known(entry) is None
    hashes.start(entry)
    with pytest.raises(FileNotFoundError):
        hashes.sha256(entry)
    assert computed == ["a", "a"]


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, hashes, original = file(tmp_path / "a.pt"), Hashes(), Entry.sha256

    def disturbed(entry: Entry, stopping: threading.Event | None = None) -> str:
        found = original(entry, stopping)
        file(entry.path, b"longer than before")
        return found

    monkeypatch.setattr(Entry, "sha256", disturbed)
    hashes.sha256(entry)
    monkeypatch.setattr(Entry, "sha256", original)
    assert hashes.known(entry) is None
    assert hashes.sha256(entry) == sha256(b"longer than before")


def test_hashes_survive_a_restart(tmp_path: Path, computed: list[str]) -> None:
    store = tmp_path / "new" / "folder" / "hashes.json"
    entries = [file(tmp_path / f"{name}.pt", name.encode()) for name in "abc"]
    first = Hashes(store)
    for entry in entries:
        first.start(entry)
    first.sha256(entries[-1])
    eventually(lambda: store.exists() and len(json.loads(store.read_text())) == 3)
    computed.clear()
    second = Hashes(store)
    assert [second.known(entry) for entry in entries] == [sha256(name.encode()) for name in "abc"]
    assert computed == []
    assert sorted(path.name for path in store.parent.iterdir()) == ["hashes.json"]


def test_two_programs_share_a_store(tmp_path: Path) -> None:
    store, a, b = tmp_path / "hashes.json", file(tmp_path / "a.pt"), file(tmp_path / "b.pt")
    one, other = Hashes(store), Hashes(store)
    assert one.known(a) is other.known(b) is None
    one.sha256(a)
    eventually(store.exists)
    other.sha256(b)
    eventually(lambda: len(json.loads(store.read_text())) == 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"a": 1}',
        b"[" * 100_000,
        b'{"PATH": [7, 1, "none"]}',
        b'{"PATH": [true, 1, 2]}',
    ],
)
def test_a_damaged_store_counts_as_empty(content: bytes, tmp_path: Path) -> None:
    store, entry = tmp_path / "hashes.json", file(tmp_path / "a.pt")
    store.write_bytes(content.replace(b"PATH", str(entry.path).encode()))
    hashes = Hashes(store)
    assert hashes.known(entry) is None
    assert hashes.sha256(entry) == sha256(b"content")
    eventually(lambda: Hashes(store).known(entry) == sha256(b"content"))


def test_a_store_that_can_not_be_written_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    hashes, entry = Hashes(tmp_path / "file" / "hashes.json"), file(tmp_path / "a.pt")
    for _ in range(2):
        assert hashes.sha256(entry) == sha256(b"content")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="other systems have other places")
def test_the_usual_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert usual_store() == tmp_path / "hypernetworks" / "hashes.json"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert usual_store() == tmp_path / "home" / ".cache" / "hypernetworks" / "hashes.json"
    assert not usual_store().parent.exists(), "made when there is something to keep"


# The thread


def test_work_is_done_once_in_order_and_what_is_waited_for_comes_first() -> None:
    done: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        assert go_on.wait(30)
        return work("first")()

    def work(name: str) -> Callable[[], str]:
        def act() -> str:
            done.append(name)
            return name

        return act

    background = Background[str]()
    futures = [background.start("first", first)]
    assert begun.wait(30)
    futures += [background.start(name, work(name)) for name in ("b", "c", "b", "first")]
    assert futures[4] is futures[0]
    assert futures[3] is futures[1]
    waited: list[str] = []
    thread = threading.Thread(
        target=lambda: waited.append(background.result("c", work("c"))), daemon=True
    )
    thread.start()
    eventually(lambda: next(iter(background._waiting)) == "c")
    assert not done
    go_on.set()
    assert [future.result(30) for future in futures] == ["first", "b", "c", "b", "first"]
    thread.join(30)
    assert (done, waited) == (["first", "c", "b"], ["c"])
    eventually(lambda: background._thread is None)


def test_what_fails_is_told_to_who_asked_and_the_rest_goes_on() -> None:
    calls: list[int] = []
    background = Background[float](when_idle=lambda: calls.append(1) or 1 / 0)
    failing = background.start("a", lambda: 1 / 0)
    assert background.result("b", lambda: 2.0) == 2.0
    with pytest.raises(ZeroDivisionError):
        failing.result(30)
    eventually(lambda: background._thread is None)
    assert calls
    assert background.result("a", lambda: 3.0) == 3.0, (
        "it can be asked again, after an idle call that failed, too"
    )


def test_nothing_runs_before_the_first_use(tmp_path: Path) -> None:
    before = threading.active_count()
    hashes = Hashes(tmp_path / "hashes.json")
    assert hashes.known(file(tmp_path / "a.pt")) is None
    assert threading.active_count() == before


@pytest.mark.slow
def test_the_end_of_the_program_waits_for_no_hash(tmp_path: Path) -> None:
    """A file that would take minutes, in a program that ends at once; what is known is kept."""
    small, store = file(tmp_path / "small.pt"), tmp_path / "hashes.json"
    huge = tmp_path / "huge.pt"
    with huge.open("wb") as sparse:
        sparse.truncate(1 << 37)
    program = f"""
from pathlib import Path
from hypernetworks.library import Entry
from hypernetworks.library.hashing import Hashes
hashes = Hashes(Path({str(store)!r}))
hashes.start(Entry("small", Path({str(small.path)!r}), "", 0, 0))
hashes.start(Entry("huge", Path({str(huge)!r}), "", 0, 0))
hashes.sha256(Entry("small", Path({str(small.path)!r}), "", 0, 0))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Hashes(store).known(small) == sha256(b"content")


def test_a_hash_that_becomes_known_meanwhile_waits_for_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look misses it; by the second, the next file is being read."""
    small, huge = file(tmp_path / "small.pt"), file(tmp_path / "huge.pt")
    hashes, reading, go_on = Hashes(), threading.Event(), threading.Event()
    known, own, recall = hashes.sha256(small), Entry.sha256, Hashes._recall

    def slow(entry: Entry, *rest: Any) -> str:
        reading.set()
        go_on.wait(20)
        return own(entry, *rest)

    monkeypatch.setattr(Entry, "sha256", slow)
    hashes.start(huge)
    assert reading.wait(20)

    is_first, found = iter((True,)), list[str]()

    def late(self: Hashes, state: Any) -> str | None:
        return None if next(is_first, False) else recall(self, state)

    monkeypatch.setattr(Hashes, "_recall", late)
    asking = threading.Thread(target=lambda: found.append(hashes.sha256(small)))
    asking.start()
    asking.join(10)
    try:
        assert found == [known]
    finally:
        go_on.set()
        asking.join(20)
        hashes.stop()
