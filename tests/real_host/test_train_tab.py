"""The tab "Train hypernetwork" in a real webui: a few steps on its checkpoint, then the network is
among the cards and acts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from webui_client import Webui, difference
from webui_page import Tab

sync_api = pytest.importorskip("playwright.sync_api")

NAME = "trained here"
MINUTES = 20
"""For two steps on the CPU, the trainer's start and the loading of the checkpoint included."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with two small images and their captions as names."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in (("a red square", "red"), ("a blue square", "blue")):
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def tidy(request: pytest.FixtureRequest, probed: Webui) -> Iterator[None]:
    """Leave the webui's folder as it was."""
    webui = Path(request.config.getoption("--webui")).resolve()
    runs = webui / "hypernetwork_training"
    existed = runs.exists()
    yield
    if not existed:
        shutil.rmtree(runs, ignore_errors=True)
    for folder in (webui / "models" / "hypernetworks", probed.folder):
        for path in folder.glob(f"{NAME}*") if folder is not None else ():
            path.unlink()
    probed.refresh()


def open_tab(page: Any, title: str) -> None:
    """Click one of the webui's main tabs."""
    tabs = page.locator("#tabs > .tab-nav button, #tabs > * button[role=tab]")
    tabs.filter(has_text=re.compile(rf"^\s*{title}\s*$")).first.click()


def fill(page: Any, **fields: str) -> None:
    """Type into fields of the form, by their names."""
    for name, value in fields.items():
        page.locator(f"#hypernetworks_train_{name} :is(input, textarea)").first.fill(value)
        page.keyboard.press("Tab")


@pytest.mark.timeout(60 * (MINUTES + 10))
@pytest.mark.usefixtures("tidy")
def test_a_network_is_trained_and_acts(
    page: Any, probed: Webui, images: Path, screenshots: Path | None
) -> None:
    open_tab(page, "Train hypernetwork")
    page.locator("#hypernetworks_train_name").wait_for(state="visible")
    fill(page, name=NAME, path=str(images), steps="2", rate="0.02")
    for title in ("More settings", "Network", "Images"):
        page.locator("#hypernetworks_train_more .label-wrap").filter(has_text=title).first.click()
    fill(page, layers="1, 0.25, 1", width="64", height="64")
    tab = Tab(page, "train", screenshots)
    tab.photograph("10 training form")

    page.click("#hypernetworks_train_start")
    told = page.locator("#hypernetworks_train_told").first  # gradio 3 has the id twice
    sync_api.expect(told).to_contain_text(f'Training "{NAME}" on', timeout=180_000)
    live = page.locator(".hypernetworks-training")
    sync_api.expect(live.locator(".studio-training")).to_be_visible()
    tab.photograph("11 training")
    live.locator(".studio-trained, .studio-error").first.wait_for(timeout=MINUTES * 60_000)
    page.evaluate("scrollTo(0, 0)")
    tab.photograph("12 trained")
    assert live.locator(".studio-error").count() == 0, live.inner_text()
    assert live.locator(".studio-curves svg").count() > 0

    live.locator(".studio-try").click()
    open_tab(page, "txt2img")
    txt2img = Tab(page, "txt2img", screenshots)
    assert f"<hypernet:{NAME}:" in txt2img.prompt
    txt2img.open_cards()
    txt2img.card(NAME).first.wait_for(state="visible")
    txt2img.photograph("13 trained card")

    made = probed.txt2img(f"x <hypernet:{NAME}:1>")
    assert made.messages == ""
    assert difference(made.picture, probed.known("x ").picture) > 0
