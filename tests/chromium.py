"""The browser of the browser tests: Chromium or Google Chrome, wherever this machine has one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PLACES = (
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Google/Chrome/Application/chrome.exe",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
"""Where installers put it on Windows and macOS, which is not on the path there."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]
NO_CHROMIUM = "no Chromium or Google Chrome on this machine"


def find() -> str | None:
    """The browser that the variable ``CHROMIUM`` names, empty for none, or the first one found."""
    if "CHROMIUM" in os.environ:
        return os.environ["CHROMIUM"] or None

    on_path = next(filter(None, map(shutil.which, NAMES)), None)
    return on_path or next((place for place in PLACES if Path(place).exists()), None)


CHROMIUM = find()


def note_errors(page: Any, problems: list[str]) -> None:
    """Gather the errors of a page and of its console, with the address that each is about."""
    page.on("console", lambda m: problems.append(_said(m)) if m.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))


def _said(message: Any) -> str:
    # "Failed to load resource" doesn't say which
    return f"{message.text} ({message.location['url']})"
