"""Ctrl+C in the middle of a real training in a real studio: ``python -m
tests.hardening.interrupted``.

The studio is started as ``python install.py studio`` starts it, in both of its ways: as a process
that becomes the studio, and as one that waits for it, as on Windows. At a moment of the training
the whole process group gets SIGINT, as a terminal sends it. The studio has to end by itself, with
everything saved: the same training, gone on with, has to come to the same network, bit for bit, as
one that nobody disturbed.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]
ROOT = TESTS.parent
NAME, STEPS = "walls", 6
MOMENTS = {
    "start": ("hypernetworks.hosts.diffusers.training.session:gather", 1),
    "encoding": (
        "hypernetworks.hosts.diffusers.training.frozen_model:FrozenModel.encode_pixels",
        2,
    ),
    "step": ("hypernetworks.hosts.diffusers.training.frozen_model:FrozenModel.predict", 4),
    "save": ("hypernetworks.training.loop:save_state", 1),
    "network": ("hypernetworks.training.checkpoints:write", 2),
    "preview": ("hypernetworks.hosts.diffusers.passes:Passes._run", 2),
    "best": ("hypernetworks.training.loop:write", 1),
}
"""The function in which the signal comes, and in which of its calls."""

WAYS = {
    "start": "starting.start(line)",
    "wait": "starting.wait(line, dict(os.environ))",
}
LAUNCHER = """
import os, signal, sys
from hypernetworks.installing import starting
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
line = [sys.executable, "-m", "tests.hardening.interrupted", "--studio", *sys.argv[1:]]
sys.exit({way})
"""


def values_for(key: str) -> Any:
    """What the page's fields say."""
    from hypernetworks.studio.train.form_values import FormValues

    return FormValues(
        name=NAME,
        key=key,
        steps=STEPS,
        batch=2,
        previews="a red wall",
        preview_every=2,
        save_every=2,
        watch_every=1,
        ema=0.9,
        precision="fp32",
    )


def studio(moment: str, folder: Path) -> int:
    """What the started process does: the studio, whose training begins at once."""
    import faulthandler
    import threading

    from hypernetworks import cli
    from hypernetworks.studio.web import server

    class AtOnce(server.Trainer):
        """A trainer whose button is pressed as soon as there is one."""

        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            key = self.training_folders.choices()[0][1]
            threading.Timer(1.0, self.start, [values_for(key)]).start()

    faulthandler.register(signal.SIGUSR1)  # where it hangs, if it does
    server.Trainer = AtOnce  # type: ignore[misc]
    _interrupt_in(*MOMENTS[moment])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = ["studio", "--no-browser", "--port", str(port), "--training", str(folder / "training")]
    return cli.main([*line, "--hypernetworks", str(folder / "networks"), "--device", "cpu"])


def _interrupt_in(place: str, number: int) -> None:
    """Let a function's nth call send Ctrl+C to the process group, before it does what it does."""
    from importlib import import_module

    module, _, path = place.partition(":")
    owner: Any = import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original, left = getattr(owner, name), [number]

    def interrupted(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            print(f"Ctrl+C in {name}", flush=True)
            os.killpg(os.getpgrp(), signal.SIGINT)
            time.sleep(0.3)  # the main thread hears of it while this one is in the middle
        return original(*given, **named)

    setattr(owner, name, interrupted)


def prepared(folder: Path) -> None:
    """Pictures to learn from, and empty folders."""
    from PIL import Image

    pictures = folder / "training" / "pictures" / "walls"
    pictures.mkdir(parents=True)
    (folder / "networks").mkdir()
    for i in range(10):
        colour = (25 * i, 200 - 20 * i, 40)
        Image.new("RGB", (96, 96), colour).save(pictures / f"{i}-a wall {i}.png")


def job_for(folder: Path, painter: Any) -> Any:
    """The same job as the page's, for going on with it here."""
    from hypernetworks.studio.train.form_values import job_of
    from hypernetworks.training.folders import TrainingFolders

    folders = TrainingFolders(folder / "training")
    key = folders.choices()[0][1]
    found = folders.folder(key)
    assert found is not None
    return job_of(values_for(key), painter, found, folders.runs)


def interrupted(moment: str, way: str, folder: Path) -> str:
    """Start it, let it be interrupted; returns what it said.

    Raises:
        AssertionError: it did not end by itself, or badly.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER.format(way=WAYS[way]), moment, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said = process.communicate(timeout=400)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGUSR1)
        time.sleep(2)
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError("it does not end: " + process.communicate()[0]) from None
    assert "Ctrl+C in" in said, said
    assert "Traceback" not in said, said
    assert process.returncode == 0, f"{process.returncode}: {said}"
    return said


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Interrupt trainings in a studio.")
    parser.add_argument("--studio", nargs=2, metavar=("MOMENT", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--moments", nargs="+", choices=list(MOMENTS), default=list(MOMENTS))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    options = parser.parse_args()
    if options.studio:
        return studio(options.studio[0], Path(options.studio[1]))

    import torch

    from hypernetworks.hosts.diffusers import Painter
    from hypernetworks.hosts.diffusers.training import train_job
    from hypernetworks.library import Library
    from hypernetworks.training.checkpoints import load_state

    painter = Painter(None, Library([]), device="cpu")
    with TemporaryDirectory() as name:
        prepared(folder := Path(name))
        job = job_for(folder, painter)
        train_job(job, painter)
        expected = load_state(job.folder)
    assert expected is not None

    for number, moment in enumerate(options.moments):
        way = options.ways[number % len(options.ways)]
        with TemporaryDirectory() as name:
            prepared(folder := Path(name))
            interrupted(moment, way, folder)
            job = job_for(folder, painter)
            state = load_state(job.folder)
            step = 0 if state is None else state["step"]
            files = sorted(p.name for p in job.folder.glob(f"{NAME}-*")) if step else []
            assert not step or f"{NAME}-{step}.safetensors" in files, files
            assert step < STEPS, "it was not interrupted"
            left = list(job.folder.rglob("*.tmp")) if step else []
            assert left == [], left

            assert train_job(job, painter).is_finished
            found = load_state(job.folder)
            assert found is not None
            same = all(map(torch.equal, found["parameters"], expected["parameters"]))
            assert same, "the continued network is another one"
        print(f"{moment} ({way}): saved at step {step}, continued to the same network", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
