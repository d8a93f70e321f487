"""What a job, and a model that is replaced, took is given back: memory, and the device's cache."""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hypernetworks import cli, devices
from hypernetworks.studio import job_queue as job_queues
from hypernetworks.studio.job_queue import JobQueue
from hypernetworks.studio.models import load


def test_the_first_model_goes_when_another_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio")
    from hypernetworks.studio.web import server

    queues: list[JobQueue] = []
    seen: list[Any] = []
    build = server.build_app
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        monkeypatch.setenv(name, "")  # what was there comes back

    def built(trainer: Any, *others: Any, **options: Any) -> Any:
        queues.append(trainer.job_queue)
        return build(trainer, *others, **options)

    def served(*_: Any) -> None:
        first = weakref.ref(queues[0].painter.pipeline.unet)
        said = list(queues[0].run("x", lambda _, *rest: load(queues[0], None, "cpu", False, *rest)))
        seen.extend([said[-1], first()])

    monkeypatch.setattr(server, "build_app", built)
    monkeypatch.setattr(server, "_serve", served)
    options = ["--no-browser", "--port", str(_free_port()), "--device", "cpu"]
    options += ["--hypernetworks", str(tmp_path), "--training", str(tmp_path / "training")]
    assert cli.main(["studio", *options]) == 0
    assert seen == ["the miniature is loaded", None]


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_its_devices_memory_is_given_back_before_the_next_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[str] = []
    monkeypatch.setattr(job_queues, "empty_cache", happened.append)
    monkeypatch.setattr(job_queues, "trim_heap", lambda: happened.append("trimmed"))
    first, second = (
        SimpleNamespace(library=None, pipeline=SimpleNamespace(device=name))
        for name in ("cuda:1", "cpu")
    )
    queue, release = JobQueue(first), threading.Event()  # type: ignore[arg-type]

    def change(_painter: Any, tell: Any, _cancelled: Any) -> None:
        queue.put(second)  # type: ignore[arg-type]
        tell(job_queues.Update(note="changed"))
        release.wait(30)
        happened.append("loaded")

    loading = queue.run("one", change)
    assert next(loading).note == "changed"
    stopped, later = queue.run("two", change), queue.run("three", lambda *_: happened.append("x"))
    next(stopped)
    next(later)
    queue.interrupt("two")
    with pytest.raises(job_queues.InterruptedJobError):
        list(stopped)  # a job that ends before its turn gives back nothing
    assert happened == []
    release.set()
    list(loading)
    list(later)
    assert happened == ["loaded", "cuda:1", "trimmed", "x", "trimmed"]


def _resident() -> float:
    """Of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, nothing is done")
def test_what_a_thread_has_freed_goes_back_to_the_system() -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("another C library than glibc")
    kept: list[bytearray] = []

    def work() -> None:
        blocks = [bytearray(b"x" * 50_000) for _ in range(2_000)]
        kept.extend(blocks[::100])  # so that the heap can't shrink from its end

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    before = _resident()
    devices.trim_heap()
    assert before - _resident() > 40


def test_another_system_or_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda _: SimpleNamespace())
    devices.trim_heap()
    monkeypatch.setattr(devices.sys, "platform", "win32")
    monkeypatch.setattr(devices.ctypes, "CDLL", None)  # calling it would fail
    devices.trim_heap()
