"""What several files of browser tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from browser.gradios import VERSIONS, server
from chromium import CHROMIUM, FLAGS, NO_CHROMIUM

with suppress(ImportError):
    from playwright.sync_api import expect

    # The default of five seconds is too short on a machine that does other things as well.
    expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Any]:
    """One for all tests of a file, once its studio is up; files with other servers have their
    own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def addresses() -> Iterator[dict[str, str]]:
    """All the servers; they are installed and started side by side."""
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    if sys.version_info >= (3, 13):
        pytest.skip("gradio 3.41.2 and its companions need Python 3.10 to 3.12")
    with ExitStack() as stack, ThreadPoolExecutor(len(VERSIONS)) as pool:
        jobs = {version: pool.submit(stack.enter_context, server(version)) for version in VERSIONS}
        yield {version: job.result() for version, job in jobs.items()}
