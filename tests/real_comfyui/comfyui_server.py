"""A real ComfyUI on this machine's CPU, with this project and the probe among its custom nodes."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROBE = Path(__file__).parent / "probe"
START_SECONDS, JOB_SECONDS = 240, 600


class ComfyUI:
    """Its API.

    Args:
        url: where it listens.
        folder: its base directory.
        checkpoints: their names, by kind.
    """

    def __init__(self, url: str, folder: Path, checkpoints: dict[str, str]) -> None:
        self.url, self.folder, self.checkpoints = url, folder, checkpoints
        self.patience = JOB_SECONDS

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, content: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}{path}",
            json.dumps(content).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
                return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            return json.loads(error.read())

    def run(self, graph: dict[str, Any]) -> dict[str, Any]:
        """The history of a graph in the API's form, once it is done."""
        return self.wait(self.queue(graph))

    def queue(self, graph: dict[str, Any]) -> str:
        """The id of a job for that graph."""
        answer = self.post("/prompt", {"prompt": graph})
        assert "prompt_id" in answer, answer
        return str(answer["prompt_id"])

    def wait(self, job: str) -> dict[str, Any]:
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            history = self.get(f"/history/{job}")
            if job in history:
                return dict(history[job])
            time.sleep(0.1)
        raise TimeoutError(job)


@contextmanager
def running(
    comfyui: Path, python: Path, folder: Path, checkpoints: dict[str, Path]
) -> Iterator[ComfyUI]:
    """A server with a base directory of its own, stopped at the end."""
    for part in (
        "custom_nodes",
        "models/checkpoints",
        "models/loras",
        "models/hypernetworks",
        "input",
        "user",
    ):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "custom_nodes" / "hypernetworks").symlink_to(ROOT)
    (folder / "custom_nodes" / "probe").symlink_to(PROBE)
    for checkpoint in checkpoints.values():
        (folder / "models/checkpoints" / checkpoint.name).symlink_to(checkpoint)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [str(python), "main.py", "--cpu", "--base-directory", str(folder)]
    command += ["--port", str(port), "--disable-auto-launch"]
    log = folder / "log.txt"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=comfyui,
            stdout=output,
            stderr=output,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        try:
            names = {kind: path.name for kind, path in checkpoints.items()}
            host = ComfyUI(f"http://127.0.0.1:{port}", folder, names)
            _wait_until_up(host, server, shlex.join(command), log)
            yield host
        finally:
            server.terminate()
            server.wait(30)


def _wait_until_up(host: ComfyUI, server: subprocess.Popen[bytes], command: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert server.poll() is None, f"{command} ended:\n{log.read_text()[-3000:]}"
        try:
            host.get("/system_stats")
            return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(log.read_text()[-3000:])
