"""What outlives a reload: the window's job, its fields, its images; and the user's gallery."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import hypernetworks as hn
from hypernetworks.hosts.diffusers import Picture, save_png
from hypernetworks.studio import images as images_module
from hypernetworks.studio.images import TRASH, Images, Item, described
from hypernetworks.studio.job_queue import JobQueue, Update, Work
from hypernetworks.studio.kept import Kept
from hypernetworks.studio.unfinished import EVERYONE as TRAINING
from hypernetworks.studio.unfinished import Unfinished
from hypernetworks.studio.windows import (
    MOST_KEPT,
    VERSION,
    Windows,
    restored_fields,
    saved_state,
)

NAME = "0123456789abcdef"


@pytest.fixture
def job_queue() -> JobQueue:
    return JobQueue(SimpleNamespace(library=None))  # type: ignore[arg-type]


def until(cancelled: threading.Event, release: threading.Event) -> str:
    while not release.wait(0.01):
        if cancelled.is_set():
            return "stopped"
    return "done"


# ------------------------------------------------------------------ jobs


def test_a_reload_finds_the_job_again_and_a_closed_window_ends_it(job_queue: JobQueue) -> None:
    release = threading.Event()

    def work(_painter: Any, tell: Any, cancelled: threading.Event) -> str:
        tell(Update(3, 9, "Step 3 of 9"))
        return until(cancelled, release)

    first = job_queue.run(NAME, work, "an image", patience=60)
    assert next(first).done == 3
    first.close()  # the page is loaded again
    with job_queue.resume(NAME, "an image") as (again,):
        assert next(again).done == 3
        for other in (("another", "an image"), (NAME, "a comparison")):
            with job_queue.resume(*other) as none:
                assert none == []
        release.set()
        assert list(again) == ["done"]

    release.clear()
    closed = job_queue.run(NAME, work, "an image", patience=0.01)
    next(closed)
    (job,) = job_queue._jobs
    closed.close()
    assert job.cancelled.wait(10)


def test_an_interrupt_after_a_reload_reaches_the_job(job_queue: JobQueue) -> None:
    def work(_painter: Any, tell: Any, cancelled: threading.Event) -> str:
        tell(Update(1, 2, "x"))
        return until(cancelled, threading.Event())

    first = job_queue.run(NAME, work, "an image", patience=60)
    next(first)
    first.close()
    with job_queue.resume(NAME, "an image") as (again,):
        next(again)
        assert job_queue.interrupt(NAME)
        assert list(again) == ["stopped"]


def test_a_reload_keeps_the_jobs_that_wait_and_tells_the_end_of_each(job_queue: JobQueue) -> None:
    release = [threading.Event() for _ in range(3)]

    def work(number: int) -> Work:
        def do(_painter: Any, tell: Any, cancelled: threading.Event) -> str:
            tell(Update(1, 2, "x"))
            return f"{until(cancelled, release[number])} {number}"

        return do

    running = [job_queue.run(NAME, work(n), "an image", patience=0.1) for n in range(3)]
    for shown in running:
        next(shown)
    for shown in running:
        shown.close()  # the page is loaded again

    with job_queue.resume(NAME, "an image") as again:
        time.sleep(0.4)  # well beyond the patience, while only the first is shown
        for event in release:
            event.set()
        ends = [list(shown)[-1] for shown in again]
    assert ends == ["done 0", "done 1", "done 2"]


def test_a_window_that_is_closed_after_a_reload_ends_all_of_its_jobs(job_queue: JobQueue) -> None:
    def work(_painter: Any, tell: Any, cancelled: threading.Event) -> str:
        tell(Update(1, 2, "x"))
        return until(cancelled, threading.Event())

    running = [job_queue.run(NAME, work, "an image", patience=60) for _ in range(2)]
    for shown in running:
        next(shown)
        shown.close()
    jobs = list(job_queue._jobs)
    for job in jobs:
        job.patience = 0.01
    with job_queue.resume(NAME, "an image") as again:
        next(again[0])
    assert all(job.cancelled.wait(10) for job in jobs)


def test_a_second_click_waits_and_the_header_shows_both(job_queue: JobQueue) -> None:
    release = threading.Event()

    def work(_painter: Any, tell: Any, cancelled: threading.Event) -> str:
        tell(Update(1, 4, "Step 1 of 4"))
        return until(cancelled, release)

    first, second = job_queue.run(NAME, work), job_queue.run(NAME, work)
    next(first)
    assert next(second).is_second
    other = job_queue.run("other", work, "a comparison")
    assert not next(other).is_second
    seen = job_queue.seen()
    assert [(job.title, job.window, job.is_running) for job in seen] == [
        ("an image", NAME, True),
        ("an image", NAME, False),
        ("a comparison", "other", False),
    ]
    assert (seen[0].done, seen[0].total) == (1, 4)
    release.set()
    for job in (first, second, other):
        assert list(job)[-1] == "done"
    assert job_queue.seen() == []


def test_a_killed_studio_has_its_next_start_tell_what_was_lost(tmp_path: Path) -> None:
    memory, release = tmp_path / "cache" / "unfinished-7870.json", threading.Event()
    killed = JobQueue(SimpleNamespace(library=None), Unfinished(memory))  # type: ignore[arg-type]

    def work(_painter: Any, tell: Any, cancelled: threading.Event) -> str:
        tell(Update())
        return until(cancelled, release)

    training = 'the training of "ink"'
    kinds = {NAME: "a comparison", "other": "an image", TRAINING: lambda: f"{training} (step 3)"}
    jobs = [killed.run(window, work, kind) for window, kind in kinds.items()]
    for job in jobs:
        next(job)  # one runs, the others wait
    assert NAME not in memory.read_text()  # which would let anyone interrupt its jobs

    for _ in range(2):  # it is killed again before its windows are back
        found = Unfinished(memory)
        told = found.message(NAME)
        assert f"before a comparison and {training} could finish" in told
        assert "start it again" in told
        assert "under Runs" in told
        assert found.message(NAME) == told  # for a page that is loaded twice
        found.note([("third", "an image")])

    found.seen(NAME)
    assert found.message(NAME) == ""
    assert "an image" in found.message("other")
    assert "an image" in Unfinished(memory).message("third")
    found.note([("other", "a conversion")])  # it goes on, and needs no message
    assert found.message("other") == ""
    release.set()
    assert list(jobs[-1])[-1] == "done"


def test_jobs_that_end_are_no_loss_and_those_of_the_end_are(tmp_path: Path) -> None:
    memory = tmp_path / "unfinished.json"
    job_queue = JobQueue(SimpleNamespace(library=None), Unfinished(memory))  # type: ignore[arg-type]
    assert list(job_queue.run(NAME, lambda *_: "done")) == ["done"]
    assert Unfinished(memory).message(NAME) == ""

    release = threading.Event()
    running = job_queue.run(NAME, lambda *given: until(given[2], release))
    threading.Timer(0.05, lambda: (job_queue.unfinished.end(), release.set())).start()
    assert list(running)[-1] == "done"  # cut off with its page by Ctrl+C
    assert "before an image could finish" in Unfinished(memory).message(NAME)

    for damaged in ("", "[1]", "[[1, 2, 3]]", '{"a": 1}', "[" * 5000, "null"):
        memory.write_text(damaged)
        assert Unfinished(memory).message(NAME) == ""


# ------------------------------------------------------------------ windows and fields


def test_a_window_keeps_its_images_under_a_new_session() -> None:
    windows = Windows()
    assert windows.of("one") == "one"
    windows.open("one", NAME)
    windows.keep(windows.of("one"), [Kept("a.png", "first")])
    windows.open("two", NAME)
    assert windows.kept(windows.of("two")) == [Kept("a.png", "first")]
    for wrong in (None, 5, "short", "x" * 65, "../../0123456789abcdef"):
        windows.open("three", wrong)
        assert windows.of("three") == "three"
    windows.keep(NAME, [Kept(f"{number}.png", "") for number in range(MOST_KEPT)])
    assert len(windows.kept(NAME)) == MOST_KEPT


def test_fields_are_restored_as_far_as_they_can_be_used() -> None:
    fields = {
        "prompt": "a cat",
        "negative": "",
        "steps": 7,
        "cfg": 2.5,
        "seed": -1,
        "sampler": "DDIM",
        "batch": 2,
        "width": 96,
        "height": 128,
    }
    state = {"model": "miniature", "fields": fields}
    assert restored_fields(state, "miniature", ["DDIM"]) == fields
    of_other = restored_fields(state, "other", ["DDIM"])
    assert set(fields) - set(of_other) == {"cfg", "sampler", "width", "height"}
    wild = {"prompt": 5, "steps": 1e9, "cfg": "x", "seed": None, "sampler": "?", "batch": True}
    assert restored_fields({"model": "m", "fields": wild}, "m", ["DDIM"]) == {}
    assert restored_fields({"fields": [1]}, "m", []) == {}


@pytest.mark.parametrize("text", ["", None, "2 {}", "1 {", "1 [1]", "1 " + "[" * 99_999, 5])
def test_what_is_no_saved_state_is_empty(text: object) -> None:
    assert saved_state(text) == {}


def test_a_saved_state_is_read() -> None:
    assert saved_state(VERSION + json.dumps({"window": NAME})) == {"window": NAME}


# ------------------------------------------------------------------ the user's images


@pytest.fixture
def images(tmp_path: Path) -> Images:
    made = Images(tmp_path / "images")
    for number, prompt in enumerate(("a red cat", "a blue cat", "a moon")):
        path = tmp_path / f"seed-{number}.png"
        save_png(Picture(Image.new("RGB", (8, 8)), f"{prompt}\nSteps: 1, Seed: {number}"), path)
        assert made.keep([Kept(str(path), "")]) == []
    return made


def names(images: Images, words: str = "", **options: Any) -> list[str]:
    return [item.name for item in images.items(words, **options)]


def test_images_are_kept_by_day_and_found_again(images: Images) -> None:
    found = names(images)
    assert len(found) == 3
    assert len(list(images.folder.glob("*/*.png"))) == 3
    assert [item.infotext.split("\n")[0] for item in images.items("cat blue")] == ["a blue cat"]
    assert names(images, after=found[0]) == found[1:]
    images.star(found[1], True)
    assert names(Images(images.folder), starred=True) == [found[1]]
    images.star(found[1], False)
    assert names(images, starred=True) == []


def test_a_search_reaches_all_images_and_says_where_it_ended(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, middle, oldest = names(images)
    monkeypatch.setattr(images_module, "MOST_SEARCHED", 1)

    def search(shown: Images, words: str, **options: Any) -> tuple[list[str], list[str]]:
        ended = list[str]()
        return names(shown, words, on_end=ended.append, **options), ended

    # What was read before is not counted: it costs nothing.
    assert search(images, "moon") == (
        [name for name in (newest, middle, oldest) if "seed-2" in name],
        [],
    )
    fresh = Images(images.folder)
    assert search(fresh, "nothing") == ([], [newest])
    assert search(fresh, "nothing", after=newest) == ([], [middle])
    assert search(fresh, "nothing") == ([], [])
    images.star(oldest, True)
    assert search(Images(images.folder), "", starred=True) == ([oldest], [])
    assert search(Images(images.folder), "", after=middle) == ([oldest], [])


def test_prompt_and_seed_of_an_image_are_those_of_its_settings() -> None:
    prompt = 'poster, text "Seed: 77"\nSteps: up the hill'
    settings = "Steps: 2, Sampler: DDIM, CFG scale: 3, Seed: 5, Size: 64x64"
    shown = described(Item("x", f"{prompt}\nNegative prompt: Seed: 8\n{settings}", True))
    assert (shown["prompt"], shown["seed"]) == (prompt, "5")
    for infotext in ("", "only words, Seed: 3"):
        shown = described(Item("x", infotext, False))
        assert (shown["prompt"], shown["seed"]) == (infotext, None)


def test_an_image_in_the_trash_can_be_taken_back(images: Images) -> None:
    name = names(images)[0]
    images.discard(name)
    assert name not in names(images)
    assert (images.folder / TRASH / name).is_file()
    with pytest.raises(hn.HypernetworkError, match="not there any more"):
        images.discard(name)


def test_the_gallery_gives_out_nothing_else(images: Images, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    day = next(path for path in images.folder.iterdir() if path.is_dir()).name
    if hasattr(os, "symlink") and os.name != "nt":
        (images.folder / day / "link.png").symlink_to(tmp_path / "secret.png")
        (images.folder / "2020-01-01").symlink_to(tmp_path)
    for name in (
        "../secret.png",
        f"{day}/../../secret.png",
        f"{day}/link.png",
        "2020-01-01/secret.png",
        str(tmp_path / "secret.png"),
        f"{day}",
        "stars.txt",
        f"{TRASH}/{day}/a.png",
        f"{day}/CON.txt",
        "",
    ):
        assert images.path(name) is None, name
    listening = Images(images.folder, is_shown=False)
    assert names(listening) == []
    assert listening.path(names(images)[0]) is None


def test_a_folder_that_takes_nothing_is_told_and_the_image_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "seed-1.png"
    save_png(Picture(Image.new("RGB", (8, 8)), "a"), path)
    (line,) = Images(tmp_path / "file").keep([Kept(str(path), "")])
    assert "not saved" in line
