"""The studio as a program of its own, and its page in a browser."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chromium import note_errors

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
NETWORKS = Path(__file__).parents[2] / "hypernetworks" / "miniature" / "networks"
PROMPT = "#hypernetworks_prompt textarea"
INFOTEXT = "#hypernetworks_infotext textarea"
PICTURE = "#hypernetworks_gallery .preview img[data-testid='detailed-image']"


@contextmanager
def studio(*options: str, port: int = 0) -> Iterator[str]:
    """The studio as ``install.py studio`` starts it, on a free port."""
    port = port or free_port()
    process = started(port, *options)
    try:
        wait(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(port: int, *options: str) -> subprocess.Popen[bytes]:
    """The process of a studio whose page is not up yet."""
    command = [sys.executable, "-m", "hypernetworks", "studio", "--no-browser"]
    return subprocess.Popen([*command, "--port", str(port), *options])


def wait(address: str, process: subprocess.Popen[bytes]) -> None:
    """Until the page is up."""
    for _ in range(240):
        assert process.poll() is None, "the studio ended before its page was up"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except urllib.error.HTTPError:  # it wants a password
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the page did not come up within two minutes")


def open_window(browser: Any, address: str, problems: list[str]) -> Any:
    """A fresh window whose fields are filled."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(20_000)
    note_errors(page, problems)
    page.on(
        "request",
        lambda r: None if r.url.startswith((address, "data:", "blob:")) else problems.append(r.url),
    )
    page.goto(address)
    page.wait_for_selector(".studio-card")
    page.wait_for_selector(".studio-opened .hypernetworks-filled")
    return page


def generate(page: Any, prompt: str | None = None, steps: int = 6) -> bytes:
    """Press Generate, wait for this very picture; returns its file."""
    if prompt is not None:
        page.fill(PROMPT, prompt)
    page.fill("#hypernetworks_steps input[type=number]", str(steps))
    page.locator("#hypernetworks_steps input[type=number]").blur()
    press_generate(page)
    return picture(page)


def press_generate(page: Any) -> None:
    page.evaluate("document.querySelector('.studio-done')?.classList.add('old')")
    page.click("#hypernetworks_generate")


def picture(page: Any) -> bytes:
    """The file of the picture that was asked for last, once it is there."""
    page.wait_for_selector(".studio-done:not(.old)", timeout=90_000)
    body: bytes = page.request.get(page.get_attribute(PICTURE, "src")).body()
    assert body.startswith(b"\x89PNG")
    return body
