"""A real studio in a process of its own, and what it takes, watched from outside through
``/proc``.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
START = 240.0
"""Seconds that the studio may take to start, on a machine that does other things as well."""

PASSES = [False, 2, 0.5, "Latent", 0.75, None]
"""The last inputs of "generate": no hires pass, no image to begin with."""


@dataclass
class Answer:
    """What came back: status 0 where the connection was closed without an answer."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    is_whole: bool = True

    def json(self) -> Any:
        """The body as JSON; ``None`` where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Studio:
    """Starts ``python -m hypernetworks studio`` with the miniature and empty folders.

    Args:
        home: an empty folder. A file with :attr:`secret` lies beside what the studio may read.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.secret = f"secret-{secrets.token_hex(16)}"
        self.marks = [self.secret.encode(), base64.b64encode(self.secret.encode())[:40]]
        (home / "secret.txt").write_text(self.secret, encoding="utf8")
        for name in ("networks", "training", "temporary"):
            (home / name).mkdir()
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "TMPDIR": str(home / "temporary"),
            "THE_SECRET": self.secret,  # so that /proc/self/environ is one as well
        }
        command = [sys.executable, "-m", "hypernetworks", "studio", "--no-browser"]
        command += ["--port", str(self.port), "--training", str(home / "training")]
        command += ["--hypernetworks", str(home / "networks")]
        self.log = home / "log.txt"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=home, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def __enter__(self) -> Studio:
        until = time.monotonic() + START
        while time.monotonic() < until and self.process.poll() is None:
            if self.ask("GET", "/config").status == 200:
                return self
            time.sleep(0.2)
        self.__exit__()
        raise RuntimeError(f"the studio does not start: {self.log.read_text(errors='replace')}")

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(30)

    # ------------------------------------------------------------------ talking to it

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        patience: float = 30.0,
        most: int = 4 << 20,
        **headers: str,
    ) -> Answer:
        """One request on a connection of its own; an answer that never ends is cut after
        ``patience`` seconds.
        """
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience)
        found = Answer(0, b"")
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in {"content-length": str(len(body or b"")), **headers}.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders(body)
            response = connection.getresponse()
            found.status = response.status
            found.headers = {name.lower(): value for name, value in response.getheaders()}
            while len(found.body) < most and (piece := response.read1(65536)):
                found.body += piece
                if time.monotonic() - began > patience:
                    found.is_whole = False
                    break
        except (OSError, http.client.HTTPException):
            found.is_whole = False
        finally:
            connection.close()
        found.seconds = time.monotonic() - began
        return found

    def post(self, path: str, content: Any, **options: Any) -> Answer:
        """Send JSON."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.ask("POST", path, body, content_type="application/json", **options)

    def leaks(self, answer: Answer) -> bool:
        """Whether the secret is in an answer, as it is or in base64."""
        return any(
            mark in answer.body or mark.decode() in str(answer.headers) for mark in self.marks
        )

    # ------------------------------------------------------------------ watching it

    def memory(self) -> float:
        """Resident, in MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def descriptors(self) -> int:
        """How many files, sockets and pipes it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def is_alive(self) -> bool:
        """Whether the process is still there."""
        return self.process.poll() is None


class Peak:
    """The most memory that a studio takes within a ``with``, looked at 50 times a second."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.first = studio, studio.memory()
        self.most = self.first
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def more(self) -> float:
        """MiB beyond what it took at first."""
        return self.most - self.first

    def _look(self) -> None:
        while not self._end.wait(0.02) and self.studio.is_alive():
            self.look()

    def look(self) -> None:
        """Measure once."""
        self.most = max(self.most, self.studio.memory())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        self._thread.join()


class Trap:
    """A server that nobody is to connect to: counts who does."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.visits = self.socket.getsockname()[1], 0
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        while True:
            try:
                visitor, _ = self.socket.accept()
            except OSError:
                return
            self.visits += 1
            visitor.close()

    def close(self) -> None:
        """Stop waiting."""
        self.socket.close()


def free_port() -> int:
    """A port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
