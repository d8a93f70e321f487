"""The cache of loaded networks: its limit, what is in use, files that change, and threads."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import Recipe
from unit.files.containers import save_zip
from unit.library.test_library import network

import hypernetworks as hn
from hypernetworks.errors import FileError, NotAHypernetworkError
from hypernetworks.library import Library, folders
from hypernetworks.library.cache import Cache


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Paths of the files that libraries have read."""
    seen: list[Path] = []

    def read(path: Path) -> hn.Hypernetwork:
        seen.append(path)
        return hn.read(path)

    monkeypatch.setattr(folders, "read", read)
    return seen


def bytes_of(network: hn.Hypernetwork) -> int:
    """Of its tensors."""
    return sum(p.numel() * p.element_size() for p in network.parameters())


def three(tmp_path: Path) -> tuple[int, list[str]]:
    """Three files of one size, and the bytes of the tensors of each."""
    for seed, name in enumerate("abc"):
        network(tmp_path / f"{name}.pt", seed=seed)
    return bytes_of(hn.read(tmp_path / "a.pt")), list("abc")


# The limit


def test_it_keeps_to_its_limit_and_drops_the_longest_unused(
    tmp_path: Path, reads: list[Path]
) -> None:
    size, names = three(tmp_path)
    library = Library([tmp_path], cache_bytes=2 * size)
    a, b, c = map(library.find, names)
    for entry in (a, b, a, c, a, c):
        library.load(entry)
        assert 0 < library.loaded_bytes <= 2 * size
    assert [path.stem for path in reads] == ["a", "b", "c"], "a was used since b"
    library.load(b)
    assert [path.stem for path in reads] == ["a", "b", "c", "b"]


def test_what_is_in_use_is_found_again_whatever_the_limit(
    tmp_path: Path, reads: list[Path]
) -> None:
    size, names = three(tmp_path)
    for limit in (0, size - 1):
        reads.clear()
        library = Library([tmp_path], cache_bytes=limit)
        used = [library.load(library.find(name)) for name in names]
        assert [library.load(library.find(name)) for name in names] == used
        assert library.loaded_bytes == size, "the last one is kept in any case"
        assert len(reads) == 3
        gone = [weakref.ref(network) for network in used]
        used.clear()
        gc.collect()
        assert [reference() is None for reference in gone] == [True, True, False], (
            "nothing else holds them"
        )
        library.load(library.find("c"))
        assert len(reads) == 3
        library.load(library.find("a"))
        assert len(reads) == 4


def test_what_was_made_ready_counts(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    size, (a, b, _) = three(tmp_path)
    monkeypatch.setattr(hn.Hypernetwork, "prepared_bytes", 0, raising=False)
    library = Library([tmp_path], cache_bytes=3 * size)
    library.load(library.find(a))
    used = library.load(library.find(b))
    assert library.loaded_bytes == 2 * size
    used.prepared_bytes = 2 * size  # type: ignore[misc]
    assert library.loaded_bytes == 4 * size
    library.trim()
    assert library.loaded_bytes == 3 * size
    assert library.load(library.find(b)) is used
    assert len(reads) == 2
    library.load(library.find("c"))
    assert library.loaded_bytes == size, "c, since b was too large beside it"
    assert library.load(library.find(b)) is used, "in use: not lost"
    assert len(reads) == 3


def test_what_no_tag_names_leaves_the_devices(tmp_path: Path) -> None:
    """With the meta device in the place of a GPU."""
    three(tmp_path)
    library = Library([tmp_path])
    a, b = (library.load(library.find(name)) for name in "ab")
    for one in (a, b):
        for device in ("cpu", "meta"):
            one.delta(8, 0, torch.device(device), torch.float64)
    on_both = a.prepared_bytes
    library.trim()
    assert a.prepared_bytes == b.prepared_bytes == on_both > 0, "this job named them"
    library.load(library.find("a"))
    library.trim()
    assert a.prepared_bytes == on_both
    assert 0 < b.prepared_bytes < on_both, "what is ready on the CPU stays within the limit"
    library.trim()
    assert a.prepared_bytes == b.prepared_bytes


def test_to_say_the_limit_again_is_not_the_end_of_a_job(tmp_path: Path) -> None:
    """Webuis say it whenever anything asks for the library, in the middle of a generation, too."""
    three(tmp_path)
    library = Library([tmp_path])
    network = library.load(library.find("a"))
    network.delta(8, 0, torch.device("meta"), torch.float64)
    ready = network.prepared_bytes
    for _ in range(3):
        library.cache_bytes = library.cache_bytes
    assert network.prepared_bytes == ready > 0
    library.trim()
    assert network.prepared_bytes == ready, "this job named it"


def test_a_smaller_limit_acts_at_once_and_a_larger_one_keeps_more(
    tmp_path: Path, reads: list[Path]
) -> None:
    size, names = three(tmp_path)
    library = Library([tmp_path])
    for name in names:
        library.load(library.find(name))
    assert library.loaded_bytes == 3 * size
    library.cache_bytes = 2 * size
    assert library.loaded_bytes == 2 * size
    library.cache_bytes = 0
    assert library.loaded_bytes == size
    library.cache_bytes = 3 * size
    for name in names * 2:
        library.load(library.find(name))
    assert [path.stem for path in reads] == ["a", "b", "c", "a", "b"]


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(0, 7))
def test_it_is_the_plain_longest_unused_rule(asked: list[int], limit: int) -> None:
    """Against a slow reference; nothing is in use."""
    cache, reads, expected, kept = Cache(limit * 32), [0] * 6, [0] * 6, list[int]()

    def read(number: int) -> Callable[[], hn.Hypernetwork]:
        def make() -> hn.Hypernetwork:
            reads[number] += 1
            made = hn.Hypernetwork("n", hn.Structure(), {})
            made.parameters = lambda: iter([torch.nn.Parameter(torch.zeros(8))])  # type: ignore[method-assign]
            return made

        return make

    for number in asked:
        cache.get(str(number), (1,), read(number))
        expected[number] += number not in kept
        kept = [n for n in kept if n != number] + [number]
        kept = kept[len(kept) - min(max(limit, 1), len(kept)) :]
        assert reads == expected
        assert (len(cache), cache.nbytes) == (len(kept), 32 * len(kept))


# Files that change


def test_a_file_that_is_swapped_back_and_forth(tmp_path: Path, reads: list[Path]) -> None:
    path = network(tmp_path / "a.pt", seed=1)
    library = Library([tmp_path])
    first, x = library.load(library.find("a")), torch.ones(1, 1, 8)
    expected = first.transform(x)[0]
    path.rename(tmp_path / "kept")
    network(path, seed=2)
    second = library.load(library.find("a"))
    assert not torch.equal(second.transform(x)[0], expected)
    assert torch.equal(first.transform(x)[0], expected), (
        "a replaced file stays as it was for those who use it"
    )
    (tmp_path / "kept").replace(path)
    third = library.load(library.find("a"))
    assert torch.equal(third.transform(x)[0], expected)


def test_the_time_of_the_last_change_need_not_tell(tmp_path: Path, reads: list[Path]) -> None:
    """Tools that keep times, as ``cp -p`` does."""
    path, other = (
        network(tmp_path / "a.pt", seed=1),
        network(tmp_path / "elsewhere" / "a.pt", seed=2),
    )
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    library = Library([tmp_path])
    entry = next(entry for entry in library.entries if entry.path == path)
    before = library.load(entry)
    other.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert library.load(entry) is not before


def test_a_damaged_successor_is_told_and_costs_no_memory(tmp_path: Path) -> None:
    path = network(tmp_path / "a.pt")
    library = Library([tmp_path])
    entry = library.find("a")
    library.load(entry)
    path.unlink()
    path.write_text("no network")
    for _ in range(2):
        with pytest.raises(NotAHypernetworkError):
            library.load(entry)
        assert library.loaded_bytes == 0
    path.unlink()
    network(path)
    assert library.load(entry).widths == (8,)


# Threads


def in_threads(count: int, act: Callable[[int], None]) -> None:
    """Run at the same time; all have ended when it returns."""
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        act(number)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "it waits for ever"


def test_threads_that_ask_for_one_file_read_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, reading, go_on, reads, got = (
        network(tmp_path / "a.pt"),
        threading.Event(),
        threading.Event(),
        [],
        [],
    )

    def slow(path: Path) -> hn.Hypernetwork:
        reads.append(path)
        reading.set()
        assert go_on.wait(30)
        return hn.read(path)

    monkeypatch.setattr(folders, "read", slow)
    library = Library([tmp_path], cache_bytes=0)
    entry = library.find("a")
    threads = [
        threading.Thread(target=lambda: got.append(library.load(entry)), daemon=True)
        for _ in range(5)
    ]
    threads[0].start()
    assert reading.wait(30)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert reads == [path]
    assert len(got) == 5
    assert len(set(map(id, got))) == 1


def test_a_long_read_holds_up_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network(tmp_path / "quick.pt")
    network(tmp_path / "slow.pt")
    library, reading, go_on = Library([tmp_path]), threading.Event(), threading.Event()
    quick = library.load(library.find("quick"))

    def slow(path: Path) -> hn.Hypernetwork:
        if path.stem == "slow":
            reading.set()
            assert go_on.wait(30)
        return hn.read(path)

    monkeypatch.setattr(folders, "read", slow)
    thread = threading.Thread(target=lambda: library.load(library.find("slow")), daemon=True)
    thread.start()
    assert reading.wait(30)
    assert library.load(library.find("quick")) is quick
    network(tmp_path / "new.pt")
    library.scan()
    assert library.load(library.find("new")).name == "new"
    assert thread.is_alive()
    go_on.set()
    thread.join(30)
    assert library.load(library.find("slow")).name == "slow"


def test_a_file_that_fails_fails_for_every_thread(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_text("no network")
    library, failed = Library([tmp_path]), list[str]()
    entry = library.find("a")

    def load(_: int) -> None:
        try:
            library.load(entry)
        except FileError as error:
            failed.append(str(error))

    in_threads(6, load)
    assert len(failed) == 6


def test_many_threads_on_a_small_cache(tmp_path: Path) -> None:
    size, names = three(tmp_path)
    for width in (16, 24):
        save_zip(Recipe((width,)).content(), tmp_path / f"w{width}.pt")
    limit = bytes_of(hn.read(tmp_path / "w24.pt")) + 2 * size
    library, wrong = Library([tmp_path], cache_bytes=limit), list[str]()
    names = [*names, "w16", "w24"]

    def work(number: int) -> None:
        for turn in range(60):
            name = names[(number * 7 + turn) % 5]
            if library.load(library.find(name)).name != name or library.loaded_bytes > limit:
                wrong.append(name)
            if turn % 10 == number:
                library.scan()

    in_threads(6, work)
    assert wrong == []
