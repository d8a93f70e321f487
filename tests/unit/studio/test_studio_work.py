"""The studio's own work, without a page: jobs of several windows, sheets, reports, and settings
from pictures."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import hypernetworks as hn
from hypernetworks.devices import usable_devices
from hypernetworks.hosts.diffusers import Generation, Picture, Result, save_png
from hypernetworks.studio.generating import generate, job_of
from hypernetworks.studio.inspecting import report
from hypernetworks.studio.job_queue import InterruptedJobError, JobQueue, Update
from hypernetworks.studio.models import checked_path
from hypernetworks.studio.restoring import read_infotext, restore


class FakePainter:
    """Paints the prompt's length, and counts."""

    def __init__(self, library: hn.Library) -> None:
        self.library = library
        self.jobs: list[Generation] = []

    def problems(self, prompt: str) -> list[str]:
        return [f"{prompt} at character 3: it doesn't fit"] if "night" in prompt else []

    def generate(self, job: Generation, on_step: Any = None, on_picture: Any = None) -> Result:
        self.jobs.append(job)
        for step in range(1, job.steps + 1):
            if on_step is not None and on_step(step, job.steps) is False:
                break
        infotext = f"{job.prompt}\nSteps: {job.steps}, Seed: {job.seed}, Size: 8x8"
        return Result([Picture(Image.new("RGB", (8, 8), "red"), infotext)] * job.batch, [])


@pytest.fixture
def library(tmp_path: Path) -> hn.Library:
    torch.manual_seed(0)
    (tmp_path / "lib").mkdir()
    for name in ("ink", "sepia", "<b>night<b>"):
        network = hn.Hypernetwork.create(
            name, hn.Structure((1, 2, 1), "relu", activate_output=False), (8, 768)
        )
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        hn.write(network, tmp_path / "lib" / f"{name}.safetensors")
    return hn.Library([tmp_path / "lib"])


@pytest.fixture
def painter(library: hn.Library) -> Any:
    return FakePainter(library)


# ------------------------------------------------------------------ jobs


def test_empty_and_wild_fields_become_a_job() -> None:
    job = job_of("a", None, None, None, None, None, None, None, None)  # type: ignore[arg-type]
    assert (job.steps, job.batch, job.sampler, job.negative) == (20, 1, None, "")
    assert 0 <= job.seed < 2**32
    assert (job.width, job.height) == (None, None)  # the model's own, not 512
    job = job_of("a", "", 1000, 0, 2**53 - 1, "Euler", 16, 4096, 8)
    assert (job.steps, job.cfg, job.seed, job.batch) == (1000, 0, 2**53 - 1, 16)
    assert (job.width, job.height) == (4096, 8)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("steps", 1001, "Steps: 1001 is not possible: use 1 to 1000"),
        ("cfg", 100.5, "CFG scale: 100.5 is not possible: use 0 to 100"),
        ("seed", 2**53, "Seed: 9007199254740992 is not possible: use 0 to 9007199254740991"),
        ("batch", 1e9, "Images"),
        ("width", 0, "Width"),
        ("height", 4097, "Height"),
        ("hires_scale", float("nan"), "Scale"),
        ("hires_strength", 0, "Hires strength"),
        ("strength", 1.1, "Strength"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(field: str, value: float, said: str) -> None:
    given: dict[str, Any] = dict.fromkeys(("steps", "cfg", "seed", "batch", "width", "height"))
    with pytest.raises(hn.HypernetworkError, match=said):
        job_of("a", "", sampler=None, hires=True, **{**given, field: value})


def test_jobs_take_turns_and_tell_their_own_window(painter: Any) -> None:
    job_queue, running, told = JobQueue(painter), threading.Event(), []

    def slow(_painter: Any, tell: Any, cancelled: threading.Event) -> str:
        running.set()
        tell(Update(1, 2, "slow"))
        cancelled.wait(10)
        return "slow"

    first = job_queue.run("one", slow)
    assert next(first).note == "slow"
    running.wait(10)
    second = job_queue.run("two", lambda _painter, _tell, _wish: "quick")
    told.append(next(second).note)
    assert job_queue.interrupt("one")
    assert list(first) == ["slow"]
    assert list(second) == ["quick"]
    assert "Waiting" in told[0]
    assert not job_queue.interrupt("one")


def test_a_waiting_job_can_be_interrupted_and_errors_arrive(painter: Any) -> None:
    job_queue, release = JobQueue(painter), threading.Event()
    first = job_queue.run(
        "one", lambda _painter, tell, _wish: (tell(Update(note="x")), release.wait(10))[1]
    )
    next(first)
    second = job_queue.run("two", lambda _painter, _tell, _wish: "never")
    next(second)
    job_queue.interrupt("two")
    with pytest.raises(InterruptedJobError):
        list(second)
    release.set()
    list(first)

    def wrong(_painter: Any, _tell: Any, _wish: threading.Event) -> None:
        raise hn.HypernetworkError("wrong")

    with pytest.raises(hn.HypernetworkError, match="wrong"):
        list(job_queue.run("one", wrong))
    assert list(job_queue.run("one", lambda _painter, _tell, _wish: 1)) == [1]


def test_a_job_that_exits_ends_the_waiting_of_its_window(painter: Any) -> None:
    job_queue = JobQueue(painter)

    def leave(*_: object) -> None:
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match=r"SystemExit\(3\)"):
        list(job_queue.run("a", leave))
    assert list(job_queue.run("a", lambda *_: "next")) == ["next"]


def test_interrupt_reaches_all_jobs_of_its_window_and_no_other(painter: Any) -> None:
    job_queue = JobQueue(painter)

    def until_told(_painter: Any, tell: Any, cancelled: threading.Event) -> bool:
        tell(Update(note="at work"))
        return cancelled.wait(10)

    def until_at_work(job: Any) -> None:
        while next(job).note != "at work":  # what it waits for may change meanwhile
            pass

    running = job_queue.run("one", until_told)
    assert next(running).note == "at work"
    waiting, of_other = (
        job_queue.run("one", until_told),
        job_queue.run("two", until_told, "a training"),
    )
    assert "an image of this window" in next(waiting).note
    assert "2 jobs" in next(of_other).note
    assert job_queue.interrupt("one")
    assert list(running) == [True]
    with pytest.raises(InterruptedJobError):
        list(waiting)
    last = job_queue.run("three", until_told)
    until_at_work(of_other)
    assert "a training of another window" in next(last).note
    assert job_queue.interrupt("two")
    assert list(of_other) == [True]
    until_at_work(last)
    assert job_queue.interrupt("three")
    assert list(last) == [True]


def test_jobs_come_in_the_order_of_asking(painter: Any) -> None:
    job_queue, begun, release = JobQueue(painter), [], threading.Event()

    def work(name: str) -> Any:
        return lambda _painter, tell, _wish: (begun.append(name), tell(Update()), release.wait(10))[
            0
        ]

    jobs = [job_queue.run(name, work(name)) for name in "abcdefg"]
    for job in jobs:
        next(job)
    release.set()
    for job in reversed(jobs):
        list(job)
    assert begun == list("abcdefg")


def test_an_interrupted_picture_says_so(painter: Any, tmp_path: Path) -> None:
    cancelled, updates = threading.Event(), []

    def tell(update: Update) -> None:
        updates.append(update)
        if update.done == 3:
            cancelled.set()

    made = generate(painter, Generation("a", steps=9), tell, cancelled, tmp_path)
    assert "after 3 of 9" in made.messages[0]
    assert updates[-1].done == 3
    assert read_infotext(Path(made.pictures[0].path)) == made.pictures[0].infotext


# ------------------------------------------------------------------ reports


def test_a_report_tells_and_draws_without_markup_of_others(library: hn.Library) -> None:
    made = report("ink", library)
    for part in ("SD1", "8, 768", "1, 2, 1", "relu", "<svg", "polyline", "Nothing unusual"):
        assert part in made
    assert "<b>" not in report("<b>night<b>", library)


def test_a_report_of_a_broken_network(tmp_path: Path) -> None:
    network = hn.Hypernetwork.create("odd", hn.Structure((1, 1, 1), "softmax"), (96,))
    next(network.parameters()).data[0, 0] = float("nan")
    hn.write(network, tmp_path / "odd.pt")
    made = report("odd", hn.Library([tmp_path]))
    for part in ("NaN", "zeros", "batch", "none of these", "not finite"):
        assert part in made
    assert "nan" not in made.split("<svg", 1)[1]
    for name in ("", "nobody"):
        with pytest.raises(hn.HypernetworkError):
            report(name, hn.Library([tmp_path]))


# ------------------------------------------------------------------ settings from pictures


def test_a_picture_gives_its_settings_back(library: hn.Library, tmp_path: Path) -> None:
    digest = library.find("ink").sha256()[:10]
    infotext = (
        "a <hypernet:ink:0.5>\nNegative prompt: b\nSteps: 7, Sampler: Euler a, CFG scale: 2.5, "
        "Seed: 9, "
        f'Size: 96x104, Model: mine, Hypernet hashes: "ink: {digest}"'
    )
    save_png(Picture(Image.new("RGB", (8, 8)), infotext), tmp_path / "a.png")
    found = restore(read_infotext(tmp_path / "a.png"), library, "mine")
    assert (found.prompt, found.negative) == ("a <hypernet:ink:0.5>", "b")
    assert (found.steps, found.sampler, found.cfg, found.seed) == (7, "Euler a", 2.5, 9)
    assert (found.width, found.height, found.messages) == (96, 104, [])


def test_what_cannot_be_restored_is_told(library: hn.Library) -> None:
    infotext = (
        "a <hypernet:ink:1> <hypernet:nobody:1>\nSteps: 9999999, Sampler: Own, CFG scale: x, "
        "Seed: -1, "
        'Size: 1x, Model: other, Hypernet hashes: "ink: 0123456789"'
    )
    found = restore(infotext, library, "mine")
    assert (found.steps, found.sampler, found.cfg, found.seed, found.width) == (
        None,
        None,
        None,
        None,
        None,
    )
    for part in ("Own", "other", "nobody", "0123456789"):
        assert any(part in message for message in found.messages)
    assert restore("just words", library, "mine").prompt == "just words"


def test_other_files_are_no_pictures_with_infotext(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    with pytest.raises(hn.HypernetworkError, match="not a readable image"):
        read_infotext(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    with pytest.raises(hn.HypernetworkError, match="no infotext"):
        read_infotext(tmp_path / "b.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "c.jpg")
    with pytest.raises(hn.HypernetworkError, match="no infotext"):
        read_infotext(tmp_path / "c.jpg")


def test_paths_of_checkpoints_are_looked_at_before_loading(tmp_path: Path) -> None:
    assert usable_devices()[-1] == "cpu"
    for text in ("", "  ", str(tmp_path / "none"), str(tmp_path)):
        with pytest.raises(hn.HypernetworkError):
            checked_path(text)
