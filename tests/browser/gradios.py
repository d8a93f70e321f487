"""The tiny webui of ``panel_app.py`` under every gradio that a webui runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PINNED = ("3.41.2", "4.40.0")
VERSIONS = (*PINNED, "current")


def environment(version: str) -> Path:
    """The interpreter that has this gradio: our own, or a small environment without torch, kept for
    the next time."""
    if version not in PINNED:
        return Path(sys.executable)
    requirements, folder = HERE / f"gradio-{version}.txt", ROOT / f".venv-gradio-{version}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = hashlib.sha256(f"{requirements.read_text()} {sys.version} {ROOT}".encode()).hexdigest()
    ready = folder / ".ready"
    if not (ready.exists() and ready.read_text() == stamp):
        shutil.rmtree(folder, ignore_errors=True)
        _make(folder, python, requirements)
        ready.write_text(stamp)
    return python


def _make(folder: Path, python: Path, requirements: Path) -> None:
    """Make an environment and install what it needs."""
    # To give it a pip of its own takes seconds; one that is too old can't install elsewhere.
    is_ours = _pip() >= 23
    options = ["--without-pip"] if is_ours else []
    subprocess.run([sys.executable, "-m", "venv", *options, str(folder)], check=True)

    line = [sys.executable, "-m", "pip", "--python", str(python)]
    line = line if is_ours else [str(python), "-m", "pip"]
    line += ["--disable-pip-version-check", "install", "--quiet", "--no-compile"]
    for patience in (30, 0):  # a registry may be out of breath once
        done = subprocess.run(
            [*line, "-r", str(requirements)], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            break
        time.sleep(patience)
    assert done.returncode == 0, done.stderr


def _pip() -> int:
    """The major version of our own pip; 0 for none."""
    try:
        return int(metadata.version("pip").partition(".")[0])
    except metadata.PackageNotFoundError:
        return 0


def wait(address: str, process: subprocess.Popen[bytes]) -> None:
    """Until the page answers."""
    for _ in range(480):
        assert process.poll() is None, "the page ended before it was up"
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.25)
    raise AssertionError("the page did not come up within two minutes")


@contextmanager
def server(version: str) -> Iterator[str]:
    """The tiny webui under a gradio, on a free port."""
    python = environment(version)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([str(python), str(HERE / "panel_app.py"), str(port)])
    try:
        address = f"http://127.0.0.1:{port}"
        wait(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)
