"""A real browser on the real page: the tab, a card, the panel's slider, a picture, and the card
again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from webui_networks import AWKWARD
from webui_page import Tab

sync_api = pytest.importorskip("playwright.sync_api")


def test_a_card_the_slider_and_a_picture(txt2img: Tab) -> None:
    start = "x," if txt2img.is_rewritten else "x"
    txt2img.write(start)
    plain = txt2img.generate()
    txt2img.open_cards()
    txt2img.photograph("1 cards")
    txt2img.click("small")
    txt2img.wait_for("<hypernet:small:0.6> a small trigger$")
    txt2img.photograph("2 card clicked")
    txt2img.close_cards()
    slider = txt2img.row("small").locator("input[type=range]")
    slider.scroll_into_view_if_needed()
    slider.focus()
    for _ in range(4):
        txt2img.page.keyboard.press("ArrowRight")
    txt2img.wait_for(
        "^x ?<hypernet:small:0.8> a small trigger$|^x, ?<hypernet:small:0.8> a small trigger$"
    )
    txt2img.photograph("3 slider moved")
    changed = txt2img.generate()
    assert changed != plain
    txt2img.photograph("4 generated")
    txt2img.open_cards()
    txt2img.click("small")
    txt2img.wait_for("^x$")
    txt2img.close_cards()
    if txt2img.is_rewritten:  # maybe not yet
        txt2img.write(start)
    assert txt2img.generate() == plain
    txt2img.photograph("5 gone")


def test_the_prompt_moves_the_slider(txt2img: Tab) -> None:
    txt2img.write("x <hypernet:small:0.35> y")
    slider = txt2img.row("small").locator("input[type=range]")
    sync_api.expect(slider).to_have_value("0.35")
    txt2img.write("x <hypernet:small:1.2:start=0.2> y")
    sync_api.expect(slider).to_have_value("1.2")


def test_dragging_the_slider_changes_its_number_only(txt2img: Tab) -> None:
    txt2img.write("x <hypernet:small:0:start=0.2> <hypernet:other:0.5> y")
    slider = txt2img.row("small").locator("input[type=range]")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    txt2img.page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    txt2img.page.mouse.down()
    txt2img.page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2, steps=5)
    txt2img.page.mouse.up()
    found = re.fullmatch(
        r"x <hypernet:small:([\d.]+):start=0\.2> <hypernet:other:0\.5> y", txt2img.prompt
    )
    assert found is not None, txt2img.prompt
    assert 1 < float(found[1]) < 2


@pytest.mark.parametrize("name", AWKWARD)
def test_cards_with_awkward_names(txt2img: Tab, name: str) -> None:
    txt2img.write("x")
    txt2img.open_cards()
    txt2img.click(name)
    txt2img.wait_for("<hypernet:")
    assert f"<hypernet:{name}:1>" in txt2img.prompt
    txt2img.click(name)
    txt2img.wait_for("^x$")


def test_a_card_in_img2img(page: Any, screenshots: Path | None) -> None:
    page.locator("#tabs > .tab-nav button, #tabs > * button[role=tab]").filter(
        has_text="img2img"
    ).first.click()
    tab = Tab(page, "img2img", screenshots)
    tab.write("y")
    tab.open_cards()
    tab.click("other")
    tab.wait_for("<hypernet:other:1>$")
    tab.photograph("6 img2img")
    tab.close_cards()
    tab.row("other").get_by_role("button", name="Remove other").click()
    tab.wait_for("^y$")


def test_messages_stand_beneath_the_picture(txt2img: Tab) -> None:
    txt2img.write("x <hypernet:smal:1>")
    txt2img.generate()
    log = txt2img.page.locator("#html_log_txt2img").first  # gradio 3 has the id twice
    sync_api.expect(log).to_contain_text("did you mean small", timeout=20_000)
    txt2img.photograph("7 message")


def test_metadata_and_editor(txt2img: Tab) -> None:
    txt2img.open_cards()
    card = txt2img.card("small").first
    card.scroll_into_view_if_needed()
    card.hover()
    card.locator(".metadata-button").click()
    shown = txt2img.page.locator(".global-popup-inner")
    sync_api.expect(shown).to_contain_text("0.25", timeout=20_000)
    txt2img.photograph("8 metadata")
    txt2img.page.keyboard.press("Escape")
    if shown.is_visible():
        txt2img.page.locator(".global-popup-close").first.click()
    card.hover()
    card.locator(".edit-button").click()
    sync_api.expect(shown).to_contain_text("Activation text", timeout=20_000)
    txt2img.page.wait_for_timeout(1500)
    txt2img.photograph("9 editor")
