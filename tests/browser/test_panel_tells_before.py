"""The panel tells before an image is generated what is wrong, and its rows can be moved and
switched off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser.plain_page import PANEL, PROMPT, Server, plain_browser, plain_page

sync_api = pytest.importorskip("playwright.sync_api")
NETWORKS = [
    {"name": "ink", "preferred_multiplier": None, "activation_text": ""},
    {"name": "sepia", "preferred_multiplier": 0.6, "activation_text": "old photo"},
    {"name": "xl", "preferred_multiplier": None, "activation_text": ""},
]
MISSING = 'there is no hypernetwork "smal", did you mean small?'
FAMILY = "made for SDXL, but the loaded model is SD1"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with plain_browser() as browser:
        yield browser


@pytest.fixture
def server() -> Server:
    return Server(NETWORKS, {"smal": MISSING, "xl": FAMILY}, {"sepia"})


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    with plain_page(browser, server) as page:
        yield page


def write(page: Any, text: str, rows: int) -> None:
    page.fill(PROMPT, text)
    sync_api.expect(page.locator(f"{PANEL} .hypernetworks-rows > li")).to_have_count(rows)


def prompt(page: Any) -> str:
    return str(page.input_value(PROMPT))


def control(page: Any, role: str, name: str) -> Any:
    return page.locator(PANEL).get_by_role(role, name=name, exact=True)


def notes(page: Any) -> Any:
    return page.locator(f"{PANEL} .hypernetworks-note")


# Marks


def test_what_is_wrong_is_said_at_once(page: Any) -> None:
    write(page, "x <hypernet:smal:1> <hypernet:xl:1> <hypernet:ink:0,5> <hypernet:ink:1>", 4)
    sync_api.expect(notes(page)).to_have_text(
        [f"⚠ {MISSING}", f"⚠ {FAMILY}", '⚠ "0,5" is not a number: write one such as 0.7', ""]
    )
    assert page.locator(f"{PANEL} .hypernetworks-wrong").count() == 3


def test_a_switch_of_the_checkpoint_is_followed(page: Any, server: Server) -> None:
    write(page, "x <hypernet:xl:1>", 1)
    sync_api.expect(notes(page)).to_have_text(f"⚠ {FAMILY}")
    page.wait_for_timeout(400)
    server.faults.clear()
    page.evaluate("window.opts = { sd_model_checkpoint: 'xl.safetensors' }")
    sync_api.expect(notes(page)).to_have_text("")
    assert page.locator(f"{PANEL} .hypernetworks-wrong").count() == 0


def test_names_are_asked_for_once_and_not_at_every_key(page: Any, server: Server) -> None:
    write(page, "x <hypernet:ink:1> <hypernet:smal:1>", 2)
    sync_api.expect(notes(page).nth(1)).to_have_text(f"⚠ {MISSING}")
    before = len([address for address, _ in server.asked if "/check?name" in address])
    page.focus(PROMPT)
    page.keyboard.type(" a long text about nothing in particular")
    assert len([address for address, _ in server.asked if "/check?name" in address]) == before


def test_a_server_that_is_away_changes_nothing(browser: Any) -> None:
    with plain_page(browser, Server()) as page:
        page.evaluate("() => { window.fetch = () => Promise.reject(new Error('away')); }")
        write(page, "<hypernet:ink:0.5>", 1)
        page.wait_for_timeout(400)
        sync_api.expect(notes(page)).to_have_text("")
        control(page, "slider", "Multiplier of ink").press("ArrowRight")
        assert prompt(page) == "<hypernet:ink:0.55>"


def test_a_preview_and_two_rows_of_one_network(page: Any) -> None:
    write(page, "<hypernet:sepia:1> <hypernet:ink:1> <hypernet:ink:2>", 3)
    sync_api.expect(page.locator(f"{PANEL} img:visible")).to_have_count(1)
    assert page.locator(f"{PANEL} .hypernetworks-label").all_text_contents() == [
        "sepia",
        "ink (1)",
        "ink (2)",
    ]


def test_a_long_name_shows_its_end(page: Any) -> None:
    long = "a name of a series that is much too long for its place in this narrow row, epoch 12"
    write(page, f"<hypernet:{long}:1>", 1)
    label = page.locator(f"{PANEL} .hypernetworks-name")
    assert label.get_attribute("title") == long
    box, text = label.bounding_box(), label.locator("bdi").bounding_box()
    assert text["width"] > box["width"]
    assert text["x"] + text["width"] == pytest.approx(box["x"] + box["width"], abs=1)


def test_the_slider_marks_0_and_1_and_follows_the_number(page: Any) -> None:
    for number, marks in (("0.5", (1 / 3, 2 / 3)), ("4", (1 / 5, 2 / 5)), ("-2", (2 / 4, 3 / 4))):
        write(page, f"<hypernet:ink:{number}>", 1)
        slider = control(page, "slider", "Multiplier of ink")
        sync_api.expect(slider).to_have_value(number)
        at = slider.evaluate(
            "e => [0, 1].map((n) => Number(e.style.getPropertyValue(`--hn-at-${n}`)))"
        )
        assert at == pytest.approx(marks, abs=1e-3)


def test_the_panel_unfolds_with_the_first_tag(browser: Any) -> None:
    with plain_page(browser, Server(opened=False)) as page:
        panel = page.locator(f"{PANEL} .hypernetworks-panel")
        page.fill(PROMPT, "x")
        page.wait_for_timeout(400)
        sync_api.expect(panel).to_be_hidden()
        page.fill(PROMPT, "x <hypernet:ink:1>")
        sync_api.expect(panel).to_be_visible()
        page.locator("#txt2img_hypernetworks_accordion .label-wrap").click()
        page.fill(PROMPT, "x <hypernet:ink:1> <hypernet:sepia:1>")
        page.wait_for_timeout(400)
        sync_api.expect(panel).to_be_hidden()


# Order


def test_the_arrow_keys_move_a_row(page: Any) -> None:
    page.evaluate("hypernetworksExtension.catalogue.load()")
    write(page, "a <hypernet:sepia:0.6> old photo, b <hypernet:ink:1>, c <hypernet:xl:2:hr=1> d", 3)
    control(page, "button", "Move sepia up or down").press("ArrowDown")
    assert prompt(page) == (
        "a <hypernet:ink:1>, b <hypernet:sepia:0.6> old photo, c <hypernet:xl:2:hr=1> d"
    )
    page.keyboard.press("ArrowDown")  # the handle keeps the focus
    assert prompt(page) == (
        "a <hypernet:ink:1>, b <hypernet:xl:2:hr=1>, c <hypernet:sepia:0.6> old photo d"
    )
    page.keyboard.press("ArrowDown")
    assert prompt(page).endswith("<hypernet:sepia:0.6> old photo d")


def test_a_row_is_dragged(page: Any) -> None:
    write(page, "<hypernet:ink:1>, <hypernet:ink:2>, <hypernet:xl:3>", 3)
    handle = control(page, "button", "Move xl up or down").bounding_box()
    first = control(page, "button", "Move ink (1) up or down").bounding_box()
    page.mouse.move(handle["x"] + 5, handle["y"] + 5)
    page.mouse.down()
    page.mouse.move(first["x"] + 5, first["y"] + 2, steps=6)
    page.mouse.up()
    assert prompt(page) == "<hypernet:xl:3>, <hypernet:ink:1>, <hypernet:ink:2>"
    assert page.locator(f"{PANEL} .hypernetworks-dragged").count() == 0


# Switched off


def test_a_switch_takes_a_network_out_and_puts_it_back(page: Any) -> None:
    page.evaluate("hypernetworksExtension.catalogue.load()")
    text = "a <hypernet:sepia:0@0,1@0.5:hr=0.4:lbw=OUTALL> old photo, b <hypernet:ink:0.5>"
    write(page, text, 2)
    use = control(page, "switch", "Use sepia")
    use.click()
    assert prompt(page) == "a, b <hypernet:ink:0.5>"
    sync_api.expect(page.locator(f"{PANEL} .hypernetworks-rows > li")).to_have_count(2)
    sync_api.expect(control(page, "textbox", "Multiplier of sepia")).to_be_disabled()
    use.click()
    assert prompt(page) == text

    use.click()
    write(page, "quite another prompt <hypernet:ink:0.7>", 2)
    use.click()
    assert prompt(page) == (
        "quite another prompt <hypernet:sepia:0@0,1@0.5:hr=0.4:lbw=OUTALL> old photo "
        "<hypernet:ink:0.7>"
    )


def test_what_is_switched_off_is_there_after_a_reload(page: Any) -> None:
    write(page, "x <hypernet:ink:0.3:k=2>", 1)
    control(page, "switch", "Use ink").click()
    assert prompt(page) == "x"
    page.reload()
    sync_api.expect(page.locator(f"{PANEL} .hypernetworks-off")).to_have_count(1)
    control(page, "switch", "Use ink").click()
    assert prompt(page) == "<hypernet:ink:0.3:k=2>"


def test_a_card_brings_back_what_is_switched_off(page: Any) -> None:
    write(page, "x <hypernet:ink:0.3:k=2>", 1)
    control(page, "switch", "Use ink").click()
    assert page.evaluate("hypernetworksExtension.toggle('txt2img', 'ink', 1)") is True
    assert prompt(page) == "x <hypernet:ink:0.3:k=2>"
    control(page, "switch", "Use ink").click()
    control(page, "button", "Remove ink").click()
    sync_api.expect(page.locator(f"{PANEL} .hypernetworks-rows > li")).to_have_count(0)
    assert prompt(page) == "x"
