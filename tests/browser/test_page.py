"""A real browser does what a newcomer does on the page."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The studio as ``install.py studio`` starts it, on a free port."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs a browser: install Debian's chromium")
        pytest.skip("no Chromium here: install it to run the browser tests")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "hypernetworks", "studio", "--no-browser", "--port", str(port)]
    process = subprocess.Popen(command)
    try:
        _wait(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        assert process.poll() is None, "the studio ended before its page was up"
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the page did not come up within two minutes")


@pytest.fixture
def page(address: str) -> Iterator[object]:
    """A fresh page; the test fails on any console error or request to another machine."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        problems: list[str] = []
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else problems.append(r.url))
        page.goto(address)
        yield page
        browser.close()
        assert problems == []


def _generate(page, prompt: str) -> str:  # type: ignore[no-untyped-def]
    """Type a prompt, press the button, wait for this very picture; returns its address."""
    page.fill("#hypernetworks_prompt textarea", prompt)
    page.click("#hypernetworks_generate")
    page.wait_for_function(
        "prompt => document.querySelector('#hypernetworks_infotext textarea')?.value.startsWith(prompt)",
        arg=prompt,
        timeout=60_000,
    )
    page.wait_for_selector("#hypernetworks_picture img", timeout=10_000)
    return str(page.get_attribute("#hypernetworks_picture img", "src"))


def test_a_newcomer_makes_two_different_pictures(page) -> None:  # type: ignore[no-untyped-def]
    first = _generate(page, "a red apple on blue")
    second = _generate(page, "a red apple on blue <hypernet:ink:1>")
    pictures = [page.request.get(src).body() for src in (first, second)]
    assert all(p.startswith(b"\x89PNG") for p in pictures)
    assert pictures[0] != pictures[1]
    assert "Hypernet hashes" in page.input_value("#hypernetworks_infotext textarea")


def test_a_bad_tag_is_told_without_markup(page) -> None:  # type: ignore[no-untyped-def]
    _generate(page, "a cat <hypernet:<img src=x onerror=alert(1)>:1>")
    page.wait_for_function("document.querySelector('#hypernetworks_messages').innerText.includes('no hypernetwork')")
    assert page.locator("#hypernetworks_messages img").count() == 0


def test_the_page_says_which_networks_there_are(page) -> None:  # type: ignore[no-untyped-def]
    for name in ("ink", "sepia", "night"):
        page.get_by_text(f"<hypernet:{name}:1>").wait_for(timeout=10_000)
