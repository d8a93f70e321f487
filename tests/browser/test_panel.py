"""A real browser uses the panel under every gradio that a webui runs, and Python has the prompt
that it wrote."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from browser.gradios import VERSIONS
from chromium import CHROMIUM, FLAGS, note_errors, stand_still

from hypernetworks.engine.multiplier import format_number
from hypernetworks.prompts import parse

sync_api = pytest.importorskip("playwright.sync_api")
PANEL = "#txt2img_hypernetworks_panel"
PROMPT = "#txt2img_prompt textarea"

# ------------------------------------------------------------------ pages


@pytest.fixture(scope="module")
def browser(addresses: dict[str, str]) -> Iterator[Any]:
    """One browser for all pages."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def open_page(
    browser: Any, address: str, problems: list[str], *, script: str = "", **options: Any
) -> Any:
    """A page whose panel is there; fonts and such from elsewhere are left out.

    Args:
        problems: takes the errors of the console.
        script: runs in the page before anything of its own.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    if script:
        context.add_init_script(script)

    page = context.new_page()
    page.set_default_timeout(10_000)
    page.route(
        re.compile(r"^https?://(?!127\.0\.0\.1)"), lambda route: route.fulfill(status=200, body="")
    )
    note_errors(page, problems)
    page.goto(address, timeout=60_000)
    page.wait_for_selector(f"{PANEL} .hypernetworks-filled", timeout=60_000)
    return page


@pytest.fixture(scope="module", params=VERSIONS)
def shared_page(
    request: pytest.FixtureRequest, browser: Any, addresses: dict[str, str]
) -> Iterator[Any]:
    """One page per gradio, and the errors of its console."""
    problems: list[str] = []
    page = open_page(browser, addresses[request.param], problems)
    yield page, problems
    page.context.close()


@pytest.fixture
def page(shared_page: tuple[Any, list[str]]) -> Iterator[Any]:
    """The page with an empty prompt; the test fails on any console error."""
    page, problems = shared_page
    problems.clear()
    page.fill(PROMPT, "")
    page.wait_for_selector(f"{PANEL} .hypernetworks-empty")
    page.evaluate("document.querySelectorAll('[role=combobox]').forEach((e) => { e.value = ''; })")
    page.evaluate("localStorage.clear(), sessionStorage.clear()")
    yield page
    assert problems == []


def prompt(page: Any) -> str:
    return str(page.input_value(PROMPT))


def write(page: Any, text: str) -> None:
    page.fill(PROMPT, text)
    expect_rows(page, len(parse(text)[1]))


def expect_rows(page: Any, count: int) -> None:
    sync_api.expect(page.locator(f"{PANEL} .hypernetworks-rows > li")).to_have_count(count)


def control(page: Any, kind: str, label: str) -> Any:
    """A slider, spinbutton, textbox, button or combobox of the panel by what a screen reader calls
    it."""
    return page.locator(PANEL).get_by_role(kind, name=label, exact=True)


def slider(page: Any, name: str) -> Any:
    return control(page, "slider", f"Multiplier of {name}")


def expect_told(page: Any, text: str, tab: str = "txt2img") -> None:
    """Python has this prompt."""
    page.click(f"#{tab}_tell")
    sync_api.expect(page.locator(f"#{tab}_told textarea")).to_have_value(f"told: {text}")


def drag(page: Any, handle: Any, start: float, end: float, *, release: bool = True) -> None:
    """Move a slider's thumb with the mouse between two shares of its width."""
    box = handle.bounding_box()
    middle, left, width = box["y"] + box["height"] / 2, box["x"] + 8, box["width"] - 16
    page.mouse.move(left + width * start, middle)
    page.mouse.down()
    page.mouse.move(left + width * (start + end) / 2, middle, steps=3)
    page.mouse.move(left + width * end, middle, steps=3)
    if release:
        page.mouse.up()


# ------------------------------------------------------------------ rows


def test_typing_brings_rows_and_moves_sliders(page: Any) -> None:
    page.focus(PROMPT)
    page.keyboard.type("a cat <hypernet:ink:0.7")
    expect_rows(page, 0)
    page.keyboard.type("> <hypernet:ink> <lora:x:1>")
    expect_rows(page, 2)
    assert slider(page, "ink (1)").input_value() == "0.7"
    assert slider(page, "ink (2)").input_value() == "1"
    write(page, "a cat <hypernet:ink:-3.5>")
    assert slider(page, "ink").input_value() == "-3.5"
    assert control(page, "spinbutton", "Multiplier of ink as a number").input_value() == "-3.5"
    assert slider(page, "ink").get_attribute("min") == "-4"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "a  cat,<hypernet:inky:0.7>  <hypernet:ink:",
            ":hr=0.4:lbw=OUTALL>,\n<lora:ink:0.7> (x:1.2) ünï 🎨 <hypernet:0.7:0.7>  ",
        ),
        ("<hypernet:ink:hr=0.4:", ":k=0.7:0.7>"),
        ("0.7 <hypernet:ink: ", " > 0.7"),
    ],
)
def test_the_slider_changes_its_number_and_nothing_else(page: Any, before: str, after: str) -> None:
    write(page, f"{before}0.7{after}")
    handle = slider(page, "ink")
    drag(page, handle, (0.7 + 1) / 3, 0.9)
    value = handle.input_value()
    assert float(value) == pytest.approx(1.7, abs=0.1)
    assert prompt(page) == f"{before}{value}{after}"
    expect_told(page, f"{before}{value}{after}")


def test_a_tag_without_number_gets_one(page: Any) -> None:
    write(page, "<hypernet:ink:hr=0.4> x")
    slider(page, "ink").focus()
    page.keyboard.press("ArrowLeft")
    assert prompt(page) == "<hypernet:ink:0.95:hr=0.4> x"
    expect_told(page, "<hypernet:ink:0.95:hr=0.4> x")


def test_focus_and_caret_stay_while_a_slider_moves(page: Any) -> None:
    write(page, "a <hypernet:ink:1> tail <hypernet:sepia:1>")
    page.evaluate(f"document.querySelector('{PROMPT}').setSelectionRange(22, 22)")
    handle = slider(page, "ink")
    element = handle.element_handle()
    drag(page, handle, 2 / 3, 0.8, release=False)
    assert page.evaluate("e => e.isConnected && e.matches(':focus')", element)
    page.mouse.up()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("e => e.isConnected && e.matches(':focus')", element)
    caret = page.evaluate(f"document.querySelector('{PROMPT}').selectionStart")
    assert prompt(page)[caret:].startswith("l <hypernet:sepia:1>")


def test_the_number_can_be_typed(page: Any) -> None:
    write(page, "<hypernet:ink:1>")
    field = control(page, "spinbutton", "Multiplier of ink as a number")
    field.fill("")
    assert prompt(page) == "<hypernet:ink:1>"
    field.press_sequentially("-0.253")
    assert prompt(page) == "<hypernet:ink:-0.253>"
    assert slider(page, "ink").get_attribute("aria-valuetext") == "-0.253"
    field.fill("")
    page.focus(PROMPT)
    assert field.input_value() == "-0.253"


def test_a_schedule_is_text_that_can_be_edited(page: Any) -> None:
    write(page, "x <hypernet:ink:0@0,1@0.5:hr=0.4> y")
    field = control(page, "textbox", "Multiplier of ink")
    assert field.input_value() == "0@0,1@0.5"
    assert slider(page, "ink").count() == 0
    field.fill("0@0, 2@0.5>:=")
    assert prompt(page) == "x <hypernet:ink:0@0, 2@0.5:hr=0.4> y"
    field.fill("0.5")  # a number by now, and still the same field, until the focus leaves
    assert field.is_visible()
    page.focus(PROMPT)
    assert slider(page, "ink").input_value() == "0.5"
    expect_told(page, "x <hypernet:ink:0.5:hr=0.4> y")


# ------------------------------------------------------------------ curves over the steps


def place(page: Any, x: float, y: float) -> tuple[float, float]:
    """A place on the one curve that is shown: shares of its paper from the first step and from the
    lowest value."""
    paper = page.locator(f"{PANEL} .hypernetworks-curve > svg:visible")
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    unit = box["width"] / 320
    return box["x"] + unit * (34 + x * 270), box["y"] + unit * (10 + (1 - y) * 72)


def point(page: Any, number: int, of: int) -> Any:
    return control(page, "slider", f"Point {number} of {of} of ink")


def test_a_curve_is_drawn_with_the_mouse(page: Any) -> None:
    write(page, "x <hypernet:ink:0.5:k=2:hr=0.4> y")
    assert page.locator(f"{PANEL} .hypernetworks-curve:visible").count() == 0
    control(page, "button", "Draw ink over the steps").click()
    assert prompt(page) == "x <hypernet:ink:0.5@0,0.5@1:k=2:hr=0.4> y"
    page.mouse.click(*place(page, 0.5, 0.803))
    assert prompt(page) == "x <hypernet:ink:0.5@0,0.8@0.5,0.5@1:k=2:hr=0.4> y"
    page.mouse.move(*place(page, 0.5, 0.8))
    page.mouse.down()
    page.mouse.move(*place(page, 0.6, 0.5), steps=3)
    page.mouse.move(*place(page, 0.7, -0.25), steps=3)  # the scale waits for the release
    assert "-0.25@0.7" in prompt(page)
    page.mouse.move(*place(page, 1.4, 0.25), steps=3)  # not past its neighbour
    page.mouse.up()
    assert prompt(page) == "x <hypernet:ink:0.5@0,0.25@1,0.5@1:k=2:hr=0.4> y"
    expect_told(page, prompt(page))
    page.mouse.dblclick(*place(page, 0, 0.5))
    assert prompt(page) == "x <hypernet:ink:0.25@1,0.5@1:k=2:hr=0.4> y"
    page.mouse.dblclick(*place(page, 0.3, 0.9))  # on the paper: one that comes, and goes
    assert prompt(page) == "x <hypernet:ink:0.25@1,0.5@1:k=2:hr=0.4> y"
    control(page, "button", "Back to one number for ink").click()
    assert prompt(page) == "x <hypernet:ink:0.5:k=2:hr=0.4> y"
    assert page.evaluate("document.activeElement.ariaLabel") == "Multiplier of ink"


def test_a_curve_is_drawn_with_the_keyboard(page: Any) -> None:
    write(page, "<hypernet:ink:1:start=0.2>")
    control(page, "button", "Draw ink over the steps").focus()
    page.keyboard.press("Enter")
    assert prompt(page) == "<hypernet:ink:1@0,1@1:start=0.2>"
    for key in ("ArrowDown", "Shift+ArrowDown", "ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    assert prompt(page) == "<hypernet:ink:0.94@0.06,1@1:start=0.2>"
    assert point(page, 1, 2).get_attribute("aria-valuetext") == "0.94 at 6 %"
    assert "0.94 at 6 %" in page.locator(f"{PANEL} .hypernetworks-hint:visible").inner_text()
    page.keyboard.press("Enter")
    assert prompt(page) == "<hypernet:ink:0.94@0.06,0.97@0.53,1@1:start=0.2>"
    assert (
        page.evaluate("document.activeElement.getAttribute('aria-label')") == "Point 2 of 3 of ink"
    )
    page.keyboard.press("Delete")
    page.keyboard.press("Delete")
    assert prompt(page) == "<hypernet:ink:0.94:start=0.2>"
    expect_told(page, prompt(page))


def test_typing_moves_the_points_and_steps_stay_steps(page: Any) -> None:
    write(page, "<hypernet:ink:0@0; 1@10>")
    first, second = point(page, 1, 2), point(page, 2, 2)
    before = second.get_attribute("transform")
    assert second.get_attribute("aria-valuetext") == "1 at step 10"
    page.fill("#txt2img_steps input[type=number]", "11")
    page.locator("#txt2img_steps input[type=number]").blur()
    sync_api.expect(second).not_to_have_attribute(
        "transform", before or ""
    )  # it is the last step now
    write(page, "<hypernet:ink:0@0; 1@5>")
    assert second.get_attribute("aria-valuetext") == "1 at step 5"
    first.focus()
    page.keyboard.press("ArrowUp")
    assert prompt(page) == "<hypernet:ink:0.05@0;1@5>"
    second.focus()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    assert prompt(page) == "<hypernet:ink:0.05@0;1@2>"  # at 1 and below, it would mean fractions
    page.fill("#txt2img_steps input[type=number]", "20")
    page.locator("#txt2img_steps input[type=number]").blur()


def test_a_finger_draws(browser: Any, addresses: dict[str, str]) -> None:
    problems: list[str] = []
    page = open_page(browser, addresses["current"], problems, has_touch=True)
    write(page, "<hypernet:ink:0@0,1@1>")
    page.touchscreen.tap(*place(page, 0.5, 0.9))
    assert prompt(page) == "<hypernet:ink:0@0,0.9@0.5,1@1>"
    finger = page.context.new_cdp_session(page)
    ways = [(0.5, 0.9), (0.45, 0.6), (0.3, 0.3)]
    for kind, way in zip(("touchStart", "touchMove", "touchMove"), ways, strict=True):
        x, y = place(page, *way)
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert prompt(page) == "<hypernet:ink:0@0,0.3@0.3,1@1>"
    page.context.close()
    assert problems == []


@pytest.mark.parametrize(
    ("tag", "problem"),
    [
        ("<hypernet:ink:0,5>", "not a number"),
        ("<hypernet:ink:1:colour=red>", "unknown argument"),
        ("[<hypernet:ink:1>:0.5]", "prompt editing"),
    ],
)
def test_a_wrong_tag_says_so(page: Any, tag: str, problem: str) -> None:
    write(page, tag)
    assert problem in page.locator(f"{PANEL} .hypernetworks-note").inner_text()
    write(page, "<hypernet:ink:0.5>")
    assert page.locator(f"{PANEL} .hypernetworks-note").inner_text() == ""


def test_removing_takes_one_tag_and_its_separator(page: Any) -> None:
    write(page, "a cat <hypernet:ink:1>, x <hypernet:sepia:0.5>  <hypernet:ink:0@0,1@1>")
    control(page, "button", "Remove ink (2)").click()
    assert prompt(page) == "a cat <hypernet:ink:1>, x <hypernet:sepia:0.5> "
    control(page, "button", "Remove ink").focus()
    page.keyboard.press("Delete")
    assert prompt(page) == "a cat, x <hypernet:sepia:0.5> "
    assert page.evaluate("document.activeElement.ariaLabel") == "Remove sepia"
    page.keyboard.press("Enter")
    assert prompt(page) == "a cat, x "
    expect_rows(page, 0)
    expect_told(page, "a cat, x ")


def test_what_python_writes_is_followed(page: Any) -> None:
    page.click("#txt2img_paste")
    expect_rows(page, 1)
    assert slider(page, "from python").input_value() == "0.3"


def test_tabs_do_not_touch_each_other(page: Any) -> None:
    write(page, "<hypernet:ink:0.5>")
    page.locator("#tabs button:visible").filter(has_text="img2img").last.click()
    page.fill("#img2img_prompt textarea", "b <hypernet:ink:1>")
    other = page.locator("#img2img_hypernetworks_panel")
    other.get_by_role("slider", name="Multiplier of ink").press("ArrowRight")
    sync_api.expect(page.locator("#img2img_prompt textarea")).to_have_value("b <hypernet:ink:1.05>")
    expect_told(page, "b <hypernet:ink:1.05>", "img2img")
    page.evaluate(
        "hypernetworksExtension.toggle('control', 'sepia', 1)"
    )  # no such tab: the prompt that can be seen
    assert (
        page.input_value("#img2img_prompt textarea") == "b <hypernet:ink:1.05> <hypernet:sepia:1>"
    )
    page.fill("#img2img_prompt textarea", "")
    page.locator("#tabs button:visible").filter(has_text="txt2img").last.click()
    assert prompt(page) == "<hypernet:ink:0.5>"
    assert slider(page, "ink").input_value() == "0.5"


# ------------------------------------------------------------------ menu, master slider, default


def test_the_menu_adds_by_search_and_keyboard(page: Any) -> None:
    write(page, "a cat")
    menu = control(page, "combobox", "Add a network")
    menu.focus()
    options = page.locator(PANEL).get_by_role("option")
    sync_api.expect(options).to_have_count(6)
    page.keyboard.type("night 2.1")
    sync_api.expect(options).to_have_count(1)
    page.keyboard.press("Enter")
    assert prompt(page) == "a cat <hypernet:styles/night (v2.1):1>"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert options.nth(1).get_attribute("aria-selected") == "true"
    page.keyboard.press("Enter")  # its own multiplier and its activation text go with it
    expected = "a cat <hypernet:styles/night (v2.1):1> <hypernet:sepia:0.6> old photo"
    assert prompt(page) == expected
    menu.click()
    options.first.click()
    assert prompt(page) == f"{expected} <hypernet:ink:1>"
    expect_rows(page, 3)
    control(page, "button", "Remove sepia").click()
    assert prompt(page) == "a cat <hypernet:styles/night (v2.1):1> <hypernet:ink:1>"


def test_screen_readers_hear_what_comes_and_goes(page: Any) -> None:
    live = page.locator(f"{PANEL} .hypernetworks-live[aria-live=polite]")
    write(page, "<hypernet:one:1> <hypernet:two:1>")
    sync_api.expect(live).to_contain_text("Added one, two.")
    slider(page, "one").press("ArrowRight")
    write(page, "<hypernet:two:1> <hypernet:three:1>")
    sync_api.expect(live).to_have_text("Added three. Removed one.")


def test_a_click_below_the_open_menu_is_not_lost(page: Any) -> None:
    write(page, "a cat <hypernet:ink:1>")
    control(page, "combobox", "Add a network").focus()
    sync_api.expect(page.locator(PANEL).get_by_role("option")).to_have_count(6)
    expect_told(page, "a cat <hypernet:ink:1>")
    assert page.locator(f"{PANEL} [role=listbox]").is_hidden()


def test_without_the_list_it_says_so_and_takes_names(page: Any) -> None:
    page.reload()
    page.wait_for_selector(f"{PANEL} .hypernetworks-filled")
    page.route(
        "**/hypernetworks/v1/*", lambda route: route.fulfill(status=200, body="<html>login</html>")
    )
    try:
        control(page, "combobox", "Add a network").focus()
        sync_api.expect(page.locator(f"{PANEL} .hypernetworks-message")).to_contain_text(
            "can't be loaded"
        )
        page.keyboard.type("some/name")
        page.keyboard.press("Enter")
        assert prompt(page) == "<hypernet:some/name:1>"
    finally:
        page.unroute("**/hypernetworks/v1/*")
    control(page, "button", "Refresh: look for new files").click()
    sync_api.expect(page.locator(f"{PANEL} .hypernetworks-message")).to_have_text(
        "6 networks found."
    )


def test_the_master_slider_keeps_relations(page: Any) -> None:
    text = "<hypernet:ink:0.7:hr=0.4> <hypernet:sepia:-0.2> <hypernet:x:0@0,1@1> <hypernet:y:k=2>"
    write(page, text)
    master = control(page, "slider", "All multipliers times")
    drag(page, master, 0.5, 0.25, release=False)
    assert master.input_value() == "0.5"
    half = (
        "<hypernet:ink:0.35:hr=0.4> <hypernet:sepia:-0.1> <hypernet:x:0@0,1@1> <hypernet:y:0.5:k=2>"
    )
    assert prompt(page) == half
    assert page.locator(f"{PANEL} output").inner_text() == "×0.5"
    page.mouse.up()
    assert master.input_value() == "1"
    expect_told(page, half)
    write(page, text)
    master.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert "<hypernet:ink:0.77:hr=0.4> <hypernet:sepia:-0.22>" in prompt(page)
    page.keyboard.press("Home")
    assert "<hypernet:ink:0:hr=0.4> <hypernet:sepia:0>" in prompt(page)
    page.focus(PROMPT)
    assert master.input_value() == "0"  # where all is nothing, what was before is kept
    master.focus()
    page.keyboard.press("End")
    assert "<hypernet:ink:1.4:hr=0.4> <hypernet:sepia:-0.4>" in prompt(page)
    page.keyboard.press("Escape")
    assert prompt(page) == text
    assert master.input_value() == "1"
    page.keyboard.press("ArrowRight")
    write(page, "<hypernet:ink:1>")  # someone else's change ends it
    assert master.input_value() == "1"


def test_the_default_is_what_cards_without_their_own_get(page: Any) -> None:
    field = control(page, "spinbutton", "Default for cards")
    field.fill("0.45")
    page.evaluate("hypernetworksExtension.toggle('txt2img', 'ink', null)")
    page.evaluate("hypernetworksExtension.toggle('txt2img', 'sepia', '')")
    page.evaluate("hypernetworksExtension.toggle('txt2img', 'x', 0.8)")
    assert prompt(page) == "<hypernet:ink:0.45> <hypernet:sepia:0.45> <hypernet:x:0.8>"
    assert page.evaluate("localStorage.getItem('hypernetworks.default_multiplier')") == "0.45"
    page.evaluate(
        "window.opts = {extra_networks_default_multiplier: 0.9, "
        "extra_networks_add_text_separator: ', '}"
    )
    try:
        page.focus(PROMPT)
        sync_api.expect(field).to_have_value("0.9")
        field.fill("0.3")
        assert page.evaluate("opts.extra_networks_default_multiplier") == 0.3
        page.fill(PROMPT, "a")
        page.evaluate("hypernetworksExtension.toggle('txt2img', 'ink')")
        assert prompt(page) == "a, <hypernet:ink:0.3>"
        page.evaluate("hypernetworksExtension.toggle('txt2img', 'ink')")
        assert prompt(page) == "a"
    finally:
        page.evaluate("delete window.opts")


# ------------------------------------------------------------------ cards


@pytest.mark.parametrize(
    "multiplier",
    [
        "",
        ":",
        ":1",
        ":0.70",
        ":-1e-3",
        ":0@0,1@0.5",
        ":abc",
        ":1:start=0.2:lbw=OUTALL",
        ":hr=0.4",
        ": 2 ",
    ],
)
def test_a_second_click_removes_the_tag_in_every_form(page: Any, multiplier: str) -> None:
    call = "hypernetworksExtension.toggle('txt2img', 'ink', 0.7, 'in ink')"
    page.fill(PROMPT, "a  cat, <lora:ink:1>")
    assert page.evaluate(call) is True
    assert prompt(page) == "a  cat, <lora:ink:1> <hypernet:ink:0.7> in ink"
    expect_rows(page, 1)
    page.fill(PROMPT, prompt(page).replace("<hypernet:ink:0.7>", f"<hypernet:ink{multiplier}>"))
    assert page.evaluate(call) is False
    assert prompt(page) == "a  cat, <lora:ink:1>"
    expect_rows(page, 0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<hypernet:ink:1> x <hypernet:ink:2:k=0> y <hypernet:inky:1>", "x y <hypernet:inky:1>"),
        ("a <hypernet:ink:1>, in ink, b", "a, b"),
        ("a <hypernet:ink:1> in inkwells", "a in inkwells"),
        ("in ink <hypernet:ink:1>, b, in ink, c", "in ink, b, c"),
        ("in ink <hypernet:ink:1> b", "in ink b"),
    ],
)
def test_only_the_activation_text_that_came_along_is_removed(
    page: Any, before: str, after: str
) -> None:
    page.fill(PROMPT, before)
    page.evaluate("hypernetworksExtension.toggle('txt2img', 'ink', 0.7, 'in ink')")
    assert prompt(page) == after


def test_names_never_become_markup(page: Any) -> None:
    name = "a & b 🎨 [x] 'quoted' \"twice\" &lt;b&gt; <i"
    page.evaluate("name => hypernetworksExtension.toggle('txt2img', name, 1)", name)
    assert prompt(page) == f"<hypernet:{name}:1>"
    expect_rows(page, 1)
    assert page.locator(f"{PANEL} .hypernetworks-name").text_content() == name
    assert slider(page, name).count() == 1
    expect_told(page, f"<hypernet:{name}:1>")
    menu = control(page, "combobox", "Add a network")
    menu.fill("onerror")
    option = page.locator(PANEL).get_by_role("option")
    sync_api.expect(option).to_have_count(1)
    assert "<img src=x onerror=window.hacked=1>" in (option.text_content() or "")
    option.click(force=True)  # it can't be written as a tag, and says so
    sync_api.expect(page.locator(f"{PANEL} .hypernetworks-message")).to_contain_text("rename")
    assert prompt(page) == f"<hypernet:{name}:1>"
    page.evaluate(
        "name => hypernetworksExtension.toggle('txt2img', name, 1)",
        "<img src=x onerror=window.hacked=1>",
    )
    write(page, "<hypernet:<img src=x onerror=window.hacked=1:1> <hypernet:<script src=//x:0,5>")
    assert page.locator(f"{PANEL} :is(img, script, i, b)").count() == 0
    assert page.evaluate("window.hacked") is None


# --- keyboard, size, life of the page


def test_the_keyboard_is_enough(page: Any) -> None:
    write(page, "<hypernet:ink:0.5>")
    slider(page, "ink").focus()
    seen = []
    for _ in range(8):
        seen.append(
            page.evaluate(
                "document.activeElement.ariaLabel || document.activeElement.labels?.[0].innerText"
            )
        )
        page.keyboard.press("Tab")
    assert seen == [
        "Multiplier of ink",
        "Multiplier of ink as a number",
        "Draw ink over the steps",
        "Remove ink",
        "Add a network",
        "Refresh: look for new files",
        "Default for cards",
        "All multipliers times",
    ]


@pytest.mark.parametrize("width", [390, 640, 1280])
def test_it_fits(page: Any, width: int) -> None:
    long = (
        "a very long name of a network that goes on and on and on (v2) and never seems to "
        "end_or_break_anywhere"
    )
    write(
        page,
        (
            f"<hypernet:{long}:0.7> <hypernet:{long} 2:0@0,1@0.5,0@1> <hypernet:bad:0,5> "
            "<hypernet:ink:2>"
        ),
    )
    page.set_viewport_size({"width": width, "height": 900})
    stand_still(page)
    try:
        control(page, "combobox", "Add a network").focus()
        sync_api.expect(page.locator(PANEL).get_by_role("option")).to_have_count(6)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(
            f"[...document.querySelectorAll('{PANEL} *')].every(e => "
            "e.closest('.hypernetworks-live') || e.getBoundingClientRect().right <= "
            f"document.querySelector('{PANEL}').getBoundingClientRect().right + 1)"
        )
        sliders = page.locator(f"{PANEL} [type=range]:visible").all()
        assert all(handle.bounding_box()["width"] > 100 for handle in sliders)
    finally:
        page.keyboard.press("Escape")
        page.set_viewport_size({"width": 1280, "height": 900})


def test_a_new_place_is_filled_and_works(page: Any) -> None:
    """Reload UI, and gradio where it renders an accordion anew."""
    write(page, "<hypernet:ink:0.5>")
    page.evaluate(
        f"""() => {{
            const fresh = document.createElement("div");
            fresh.className = "hypernetworks-panel";
            fresh.dataset.tab = "txt2img";
            document.querySelector("{PANEL} .hypernetworks-panel").replaceWith(fresh);
        }}"""
    )
    expect_rows(page, 1)
    slider(page, "ink").press("ArrowRight")
    assert prompt(page) == "<hypernet:ink:0.55>"


def test_the_accordion_closes_and_opens(page: Any) -> None:
    write(page, "<hypernet:ink:0.5>")
    title = page.locator("#txt2img_hypernetworks_accordion").get_by_text(
        "Hypernetworks", exact=True
    )
    title.click()
    sync_api.expect(slider(page, "ink")).to_be_hidden()
    page.fill(PROMPT, "<hypernet:ink:0.8>")
    title.click()
    sync_api.expect(slider(page, "ink")).to_have_value("0.8")


def test_the_webuis_own_messenger_is_used(page: Any) -> None:
    page.evaluate(
        """() => {
            window.updateInput = (target) => {  // as AUTOMATIC1111 has it
                const event = new Event("input", { bubbles: true });
                Object.defineProperty(event, "target", { value: target });
                target.dispatchEvent(event);
                window.told = (window.told ?? 0) + 1;
            };
        }"""
    )
    try:
        write(page, "<hypernet:ink:0.5>")
        slider(page, "ink").press("ArrowRight")
        assert page.evaluate("window.told") == 1
        expect_told(page, "<hypernet:ink:0.55>")
    finally:
        page.evaluate("delete window.updateInput")


# ------------------------------------------------------------------ the same language as Python's

ITEMS = [
    *(
        "0.7",
        "-1",
        "1e3",
        "1_0",
        "0,5",
        "nan",
        "inf",
        ".5",
        "5.",
        "",
        " ",
        "abc",
        "+2",
        " 0.7",
        "1@0",
        "0@0,1@0.5",
    ),
    *(
        "0@0;1@20",
        "0@0,1",
        "1@-1",
        "1@x,2@3",
        "hr=",
        "hr=0@0,1@1",
        "k=1",
        "k=x",
        "v=2",
        "start=0.2",
        "stop=10",
    ),
    *(
        "start=-1",
        "attn=cross",
        "attn=x",
        "lbw=OUTALL",
        "lbw=outall",
        "lbw=1,2",
        "lbw=" + ";".join("1" * 17),
        "odd=1",
    ),
]
NAMES = ["ink", "a=b", " ", "", "ü 🎨", "<i", "x/y (1)"]
AROUND = [
    *("[", "]", "(", ")", "|", ":0.5]", ":5]", ":", ":a:.5 ]", "\\", "cat", "\n", "<", ">"),
    *("<lora:", "<lora:[:1>", "<hypernet>", "<ü:]>"),
]


def some_prompt(chance: random.Random) -> str:
    """Tags of all kinds among brackets of all kinds, most of them a little wrong."""

    def piece() -> str:
        if chance.random() < 0.6:
            return chance.choice(AROUND)
        items = [chance.choice(NAMES), *chance.choices(ITEMS, k=chance.randint(0, 3))]
        return f"<hypernet:{':'.join(items)}>"

    return "".join(piece() for _ in range(chance.randint(1, 8)))


def test_tags_mean_what_they_mean_to_python(browser: Any, addresses: dict[str, str]) -> None:
    chance = random.Random(3)
    prompts = [some_prompt(chance) for _ in range(4000)]
    problems: list[str] = []
    page = open_page(browser, addresses["current"], problems)
    read = page.evaluate(
        """prompts => prompts.map((text) => hypernetworksExtension.parseTags(text).map((tag, index) => ({
            items: tag.items, start: tag.start, wrong: tag.problem !== null, number: tag.number,
            rewritten: hypernetworksExtension.rewrite(text, index, "0.123"),
            spaced: tag.items.some((i) => i !== i.trim()),
        })))""",
        prompts,
    )
    page.context.close()
    assert sum(map(len, read)) > 4000
    for text, tags in zip(prompts, read, strict=True):
        expected = parse(text)[1]
        assert [tag["items"] for tag in tags] == [list(tag.items) for tag in expected], text
        for mine, theirs in zip(tags, expected, strict=True):
            assert (
                len(text.encode("utf-16-le")[: 2 * mine["start"]].decode("utf-16-le"))
                == theirs.start
            ), text
            assert mine["wrong"] == (theirs.error is not None), (text, theirs.error)
            if theirs.multiplier is not None and "@" not in str(theirs):
                assert mine["number"] == theirs.multiplier.strength.at(0, 1), text
            if not mine["spaced"]:
                end = theirs.start + len(str(theirs))
                assert (
                    mine["rewritten"]
                    == text[: theirs.start] + str(theirs.with_multiplier("0.123")) + text[end:]
                )
    assert problems == []


def dropped(*patterns: str, left: str = "\n") -> Callable[[str], str]:
    """A webui's way to take comments out, by its patterns, and what it leaves there."""

    def strip(text: str) -> str:
        for pattern in patterns:
            text = re.sub(pattern, left, text)
        return text

    return strip


COMMENTS = {
    "a1111": ({"enable_prompt_comments": True}, dropped(r"#[^\n]*(\n|$)")),
    "neo": (
        {"enable_prompt_comments": True, "save_prompt_comments": False},
        dropped(r"(?s)/\*.*?\*/", r"[^\S\n]*(#|//).*", left=""),
    ),
    "reforge": (
        {"enable_prompt_comments_def": False},
        dropped(r"(?ms)^/\*.*?\*/(\n|$)", r"#.*(\n|$)", r"//.*(\n|$)", r"/\*.*(\n|$)|\*/.*(\n|$)"),
    ),
    "off": ({"enable_prompt_comments": False}, dropped()),
    "unknown": ({}, dropped()),
}


@pytest.mark.parametrize("kind", COMMENTS)
def test_tags_in_comments_are_none(browser: Any, addresses: dict[str, str], kind: str) -> None:
    chance, (settings, strip) = random.Random(5), COMMENTS[kind]
    marks = ("#", "# ", "//", "/*", "*/", "\n", "\n# ", "\n/* ", " */\n", " http://x ")

    def commented() -> str:
        return "".join(
            chance.choice(marks) if chance.random() < 0.4 else some_prompt(chance)
            for _ in range(chance.randint(1, 6))
        )

    prompts = [commented() for _ in range(1500)]
    page = open_page(browser, addresses["current"], [])
    page.evaluate("settings => { window.opts = settings; }", settings)
    read, more = page.evaluate(
        """prompts => [
            prompts.map((text) => hypernetworksExtension.parseTags(text).map((tag) => tag.items)),
            prompts.map((text) => hypernetworksExtension.append(text, "new", 1)),
        ]""",
        prompts,
    )
    page.context.close()

    def spaced(items: Iterable[str]) -> list[str]:
        return [" ".join(item.split()) for item in items]

    found = 0
    for text, tags, longer in zip(prompts, read, more, strict=True):
        expected = [spaced(tag.items) for tag in parse(strip(text))[1]]
        assert [spaced(items) for items in tags] == expected, text
        found += len(parse(text)[1]) - len(expected)
        assert longer.startswith(text)
        assert "new" in [tag.name.strip() for tag in parse(strip(longer))[1]] or "<" in text, text
    assert (found > 100) == (kind not in ("off", "unknown"))


def test_curves_are_those_of_python(browser: Any, addresses: dict[str, str]) -> None:
    chance = random.Random(7)

    def number(*choice: float) -> str:
        return format_number(chance.choice((*choice, round(chance.uniform(-2, 3), 2))))

    def tail() -> str:
        ends = (0.0, 0.25, 0.5, 1.0, 1.0, *((1.5, 4.0, 7.0, 30.0) if chance.random() < 0.5 else ()))
        count = chance.randint(1, 4)
        strength = ",".join(
            f"{number(0, 1)}@{format_number(chance.choice(ends))}" for _ in range(count)
        )
        window = [
            f"{name}={format_number(chance.choice(ends))}"
            for name in ("start", "stop")
            if chance.random() < 0.4
        ]
        return ":".join([strength if chance.random() < 0.8 else number(0), *window])

    tails = [tail() for _ in range(1500)]
    known = [
        (text, tag.multiplier)
        for text in tails
        if (tag := parse(f"<hypernet:a:{text}>")[1][0]).multiplier
    ]
    assert len(known) > 1000
    problems: list[str] = []
    page = open_page(browser, addresses["current"], problems)
    drawn = page.evaluate(
        """([tails, totals]) => tails.map((tail) => {
            const [tag] = hypernetworksExtension.parseTags(`<hypernet:a:${tail}>`);
            const schedule = hypernetworksExtension.curves.readSchedule(tag);
            return totals.map((total) => Array.from(
                { length: total }, (_, step) => hypernetworksExtension.curves.valueAt(schedule, step, total),
            ));
        })""",
        [[text for text, _ in known], [1, 2, 9, 20]],
    )
    page.context.close()
    for (text, multiplier), curves in zip(known, drawn, strict=True):
        for values in curves:
            assert values == [multiplier.at(step, len(values)) for step in range(len(values))], text
    assert problems == []
