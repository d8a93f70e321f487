"""The button "Reload UI": the webui runs its scripts again, our package stays in memory."""

from __future__ import annotations

import time

import pytest
from webui_client import Webui, difference

SMALL = "x <hypernet:small:1>"
SECONDS = 240


def reload(webui: Webui) -> None:
    """Press the button and wait until the server is back."""
    webui.post("/probe/reload_ui")
    time.sleep(8)  # the server needs a while to go down
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            webui.get("/probe/pages")
            webui.get("/hypernetworks/v1/list")
        except (OSError, RuntimeError):
            time.sleep(1)
        else:
            return
    raise AssertionError("the webui did not come back")


def test_nothing_doubles(probed: Webui, host: str) -> None:
    if host == "sdnext":
        pytest.skip("its button starts a new process")
    before = probed.known(SMALL).picture, probed.known("x ").picture
    pages = probed.get("/probe/pages")
    for _ in range(2):
        reload(probed)
        assert sorted(probed.get("/probe/pages")["pages"]) == sorted(pages["pages"])
        assert probed.get("/probe/pages")["handler"].startswith("hypernetworks.")
        assert difference(probed.txt2img(SMALL).picture, before[0]) == 0
        assert difference(probed.txt2img("x ").picture, before[1]) == 0
        made = probed.txt2img("x <hypernet:smal:1>")
        assert made.messages.count("did you mean") == 1
        assert probed.state()["our_hooks"] == 0
