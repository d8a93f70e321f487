"""Too much of everything for a real studio: ``python -m tests.hardening.floods``.

Memory is watched from outside.
"""

from __future__ import annotations

import http.client
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from hardening.payloads import API  # noqa: E402
from hardening.served import PASSES, Peak, Studio  # noqa: E402

FORM = "multipart/form-data; boundary=x"


@dataclass
class Flood:
    """How often each status came, MiB more than before at the worst moment, seconds."""

    statuses: dict[int, int]
    more: float
    seconds: float


def large_field(studio: Studio, mib: int) -> Flood:
    """A form field without a file name."""

    def pieces() -> Iterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="files"\r\n\r\n'
        for _ in range(mib):
            yield bytes(1 << 20)
        yield b"\r\n--x--\r\n"

    return _sent(studio, pieces())


def many_files(studio: Studio, count: int) -> Flood:
    """One upload with many small files."""

    def pieces() -> Iterator[bytes]:
        for number in range(count):
            head = f'content-disposition: form-data; name="files"; filename="{number}.png"'
            yield f"--x\r\n{head}\r\n\r\n".encode() + bytes(1000) + b"\r\n"
        yield b"--x--\r\n"

    return _sent(studio, pieces())


def _sent(studio: Studio, pieces: Iterator[bytes]) -> Flood:
    """Send a body of unknown length, as far as the studio takes it."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", studio.port, timeout=120)
    with Peak(studio) as peak:
        connection.putrequest("POST", f"{API}/upload")
        connection.putheader("content-type", FORM)
        connection.putheader("transfer-encoding", "chunked")
        connection.endheaders()
        try:
            for piece in pieces:
                connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            connection.send(b"0\r\n\r\n")
        except OSError:
            pass  # it has said no, and listens no longer
        try:
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            status = 0
    connection.close()
    return Flood({status: 1}, peak.more, time.monotonic() - began)


def many_jobs(studio: Studio, count: int) -> Flood:
    """Generations that nobody waits for, 40 requests at a time."""
    data = ["x" * 20_000, "x" * 20_000, 1, 3, 1, None, 1, 64, 64, *PASSES]

    def ask(_number: int) -> int:
        return studio.post(f"{API}/call/generate", {"data": data}, patience=120).status

    began = time.monotonic()
    with Peak(studio) as peak, ThreadPoolExecutor(40) as pool:
        statuses = Counter(pool.map(ask, range(count)))
    return Flood(dict(statuses), peak.more, time.monotonic() - began)


def slow_body(studio: Studio, pause: float) -> Flood:
    """A body that comes byte by byte."""
    began, status = time.monotonic(), 0
    with Peak(studio) as peak, socket.create_connection(("127.0.0.1", studio.port), 90) as slow:
        slow.sendall(
            b"POST /gradio_api/run/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: "
            b"9999\r\n\r\n"
        )
        slow.settimeout(pause)
        while time.monotonic() - began < 90 and not status:
            try:
                slow.sendall(b" ")
                answer = slow.recv(100)
                status = int(answer.split()[1]) if answer else -1
            except TimeoutError:
                continue
            except OSError:
                break
    return Flood({status: 1}, peak.more, time.monotonic() - began)


def main() -> int:
    """Print the figures of docs/SECURITY.md."""
    with tempfile.TemporaryDirectory() as home, Studio(Path(home).resolve()) as studio:
        for name, flood in (
            ("a field of 400 MiB", lambda: large_field(studio, 400)),
            ("an upload of 1,000 files", lambda: many_files(studio, 1_000)),
            ("an upload of 1,001 files", lambda: many_files(studio, 1_001)),
            ("a slow body", lambda: slow_body(studio, 1.0)),
            ("720 jobs", lambda: many_jobs(studio, 720)),
        ):
            print(name, flood(), f"alive: {studio.is_alive()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
