"""A real browser on the real page: the tab, a card, the panel's slider, a picture, and the card
again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, FLAGS, NO_CHROMIUM
from webui_client import Webui
from webui_networks import AWKWARD

sync_api = pytest.importorskip("playwright.sync_api")
MILLISECONDS = 240_000
"""How long the page may take for a picture."""


class Tab:
    """One of the page's tabs with a prompt.

    Args:
        page: the browser's.
        name: ``"txt2img"`` or ``"img2img"``.
        screenshots: a folder, or ``None``.
    """

    def __init__(self, page: Any, name: str, screenshots: Path | None) -> None:
        self.page, self.name, self.screenshots = page, name, screenshots

    @property
    def prompt(self) -> str:
        """What stands in the prompt."""
        return str(self.page.input_value(f"#{self.name}_prompt textarea"))

    def write(self, text: str) -> None:
        """Type a prompt."""
        self.page.fill(f"#{self.name}_prompt textarea", text)

    def wait_for(self, pattern: str) -> None:
        """Until the prompt matches a regular expression of JavaScript."""
        self.page.wait_for_function(
            "([selector, pattern]) => new RegExp(pattern).test(document.querySelector(selector).value)",
            arg=[f"#{self.name}_prompt textarea", pattern],
            timeout=10_000,
        )

    def open_cards(self) -> None:
        """Click the tab Hypernetworks among the extra networks' tabs."""
        tab = self.page.locator(
            f"#{self.name}_extra_tabs > .tab-nav button, #{self.name}_extra_tabs button[role=tab]"
        )
        tab.filter(has_text=re.compile(r"^\s*Hypernetworks\s*$")).first.click()
        self.card("small").wait_for(state="visible")

    def close_cards(self) -> None:
        """Back to the settings, the panel and the gallery."""
        self.page.locator(f"#{self.name}_extra_tabs button").first.click()

    def card(self, name: str) -> Any:
        """A card by the name that it shows."""
        return self.page.locator(f"#{self.name}_hypernetworks_cards .card").filter(
            has=self.page.get_by_text(name, exact=True)
        )

    def click(self, name: str) -> None:
        """Click a card where nothing but the card is."""
        card = self.card(name).first
        card.scroll_into_view_if_needed()
        card.locator(".name").click()

    def row(self, name: str) -> Any:
        """The panel's row of a network."""
        rows = self.page.locator(f"#{self.name}_hypernetworks_panel li")
        return rows.filter(has=self.page.get_by_text(name, exact=True)).first

    def generate(self) -> bytes:
        """Press the button; the picture that appears."""
        gallery = f"#{self.name}_gallery img"
        old = {image.get_attribute("src") for image in self.page.locator(gallery).all()}
        self.page.click(f"#{self.name}_generate")
        self.page.wait_for_function(
            "([selector, old]) => [...document.querySelectorAll(selector)].some(i => i.src && !old.includes(i.src) "
            "&& !old.includes(i.getAttribute('src')))",
            arg=[gallery, sorted(filter(None, old))],
            timeout=MILLISECONDS,
        )
        self.page.wait_for_selector(f"#{self.name}_interrupt", state="hidden", timeout=MILLISECONDS)
        source = self.page.locator(gallery).last.get_attribute("src")
        return bytes(
            self.page.request.get(
                self.page.evaluate("s => new URL(s, document.baseURI).href", source)
            ).body()
        )

    def photograph(self, name: str) -> None:
        """Keep a screenshot."""
        if self.screenshots is not None:
            self.page.screenshot(path=self.screenshots / f"{name}.png")


@pytest.fixture
def screenshots(request: pytest.FixtureRequest) -> Path | None:
    """Where they go, if anywhere."""
    folder = request.config.getoption("--webui-screenshots")
    if folder is None:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


@pytest.fixture
def page(probed: Webui) -> Iterator[Any]:
    """The webui's page, with no request to any other machine; the test fails on an error that names
    our files."""
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1500})
        problems: list[str] = []
        page.route(lambda url: not url.startswith(probed.url), lambda route: route.abort())
        page.on("pageerror", lambda error: problems.append(f"{error}\n{error.stack}"))
        page.on(
            "dialog",
            lambda dialog: (
                problems.append(f"hypernetworks: a dialog {dialog.message}"),
                dialog.dismiss(),
            ),
        )
        page.goto(probed.url, timeout=120_000)
        page.wait_for_selector(
            ".hypernetworks-panel.hypernetworks-filled", state="attached", timeout=120_000
        )
        page.wait_for_function(
            "() => window.opts && Object.keys(window.opts).length > 0", timeout=60_000
        )
        page.wait_for_timeout(1500)  # the webui's own scripts settle
        yield page
        browser.close()
        print("errors on the page:", problems)
        assert not [problem for problem in problems if "hypernet" in problem.lower()]


@pytest.fixture
def txt2img(page: Any, screenshots: Path | None) -> Tab:
    """The first tab, set to small pictures of two steps."""
    for name, value in (("width", 64), ("height", 64), ("steps", 2)):
        page.fill(f"#txt2img_{name} input[type=number]", str(value))
        page.press(f"#txt2img_{name} input[type=number]", "Tab")
    page.fill("#txt2img_seed input", "1")
    page.press("#txt2img_seed input", "Tab")
    return Tab(page, "txt2img", screenshots)


def test_a_card_the_slider_and_a_picture(txt2img: Tab) -> None:
    txt2img.write("x")
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
    tab.row("other").locator("button").first.click()
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
