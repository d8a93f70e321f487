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
AT_ITS_END = """async () => {
    const ends = (move) => move.playState === "running" && move.effect.getComputedTiming().endTime < Infinity;
    for (let frame = 0; frame < 60; frame += 1) {  // a change that is done can start another
        await new Promise(requestAnimationFrame);
        const moves = document.getAnimations().filter(ends);
        if (frame && !moves.length) return true;
        for (const move of moves) move.finish();
    }
    return false;
}"""


def find() -> str | None:
    """The browser that the variable ``CHROMIUM`` names, empty for none, or the first one found."""
    if "CHROMIUM" in os.environ:
        return os.environ["CHROMIUM"] or None

    on_path = next(filter(None, map(shutil.which, NAMES)), None)
    return on_path or next((place for place in PLACES if Path(place).exists()), None)


CHROMIUM = find()


def stand_still(page: Any) -> None:
    """Take whatever moves on a page to the end of its way.

    gradio gives every button a transition of 0.2 s, its size included: who measures right after a
    change of the window finds sizes that nobody is meant to see.
    """
    assert page.evaluate(AT_ITS_END), "something on the page never stops moving"


def note_errors(page: Any, problems: list[str]) -> None:
    """Gather the errors of a page and of its console, with the address that each is about."""
    page.on("console", lambda m: problems.append(_said(m)) if m.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))


def _said(message: Any) -> str:
    # "Failed to load resource" doesn't say which
    return f"{message.text} ({message.location['url']})"
