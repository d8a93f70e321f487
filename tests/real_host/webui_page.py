"""The webui's page in Chromium: opening it, and what a user does on one of its tabs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, FLAGS, NO_CHROMIUM

MILLISECONDS = 240_000
"""How long the page may take for a picture."""
SECONDS_OF_A_REACTION = 30
"""How long it may take for anything else; the webui computes on the same CPU."""

WINDOWS = ".physton-packages-state"
"""What neighbours open over the whole page: sd-webui-prompt-all-in-one, of packages it misses."""

PROMPT = """selector => {
    const text = document.querySelector(selector).value;
    if (document.getElementById("physton-prompt-all-in-one") === null) return text;
    return text.replace(/\\s*,\\s*(?=<hypernet:|$)/g, " ").replace(/>\\s*,\\s*/g, "> ").trim();
}"""
"""The prompt, without the commas that sd-webui-prompt-all-in-one sets before and after tags."""


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
        """What stands in the prompt, without a neighbour's commas."""
        return str(self.page.evaluate(PROMPT, f"#{self.name}_prompt textarea"))

    @property
    def is_rewritten(self) -> bool:
        """Whether sd-webui-prompt-all-in-one sets commas in the prompt."""
        return bool(self.page.locator("#physton-prompt-all-in-one").count())

    def write(self, text: str) -> None:
        """Type a prompt, and let a neighbour that rewrites prompts do so."""
        self.page.fill(f"#{self.name}_prompt textarea", text)
        if self.is_rewritten:
            # Every half second it looks at a prompt that does not have the focus.
            self.page.locator(f"#{self.name}_prompt textarea").blur()
            self.page.wait_for_timeout(2000)

    def wait_for(self, pattern: str) -> None:
        """Until the prompt matches a regular expression of JavaScript."""
        self.page.wait_for_function(
            f"([selector, pattern]) => new RegExp(pattern).test(({PROMPT})(selector))",
            arg=[f"#{self.name}_prompt textarea", pattern],
            timeout=SECONDS_OF_A_REACTION * 1000,
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
        """Click a card where nothing but the card is.

        Not on its name, which flickers under the pointer beside Civitai-Helper, on all cards: its
        style sheet makes a name wider that the pointer is not on.
        """
        card = self.card(name).first
        card.scroll_into_view_if_needed()
        height = card.bounding_box()["height"]
        card.click(position={"x": 20, "y": height / 2})

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
            "([selector, old]) => [...document.querySelectorAll(selector)].some("
            "i => i.src && !old.includes(i.src) && !old.includes(i.getAttribute('src')))",
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


@contextmanager
def opened(url: str) -> Iterator[Any]:
    """The webui's page, with no request to any other machine.

    Raises:
        AssertionError: at the end, for an error that names our files, and for each dialog.
    """
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    sync_api.expect.set_options(timeout=SECONDS_OF_A_REACTION * 1000)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1500})
        problems = _watch(page, url)
        page.goto(url, timeout=MILLISECONDS)
        page.add_style_tag(content=f"{WINDOWS} {{ display: none !important; }}")
        page.wait_for_selector(
            ".hypernetworks-panel.hypernetworks-filled", state="attached", timeout=MILLISECONDS
        )
        page.wait_for_function(
            "() => typeof opts === 'object' && Object.keys(opts).length > 0", timeout=MILLISECONDS
        )
        page.wait_for_timeout(1500)  # the webui's own scripts settle
        yield page
        browser.close()
        print("errors on the page:", problems)
        assert not [problem for problem in problems if "hypernet" in problem.lower()]


def _watch(page: Any, url: str) -> list[str]:
    """Keep the page from other machines; the errors and dialogs that it is going to have."""
    problems: list[str] = []
    page.route(lambda address: not address.startswith(url), lambda route: route.abort())
    page.on("pageerror", lambda error: problems.append(f"{error}\n{error.stack}"))
    page.on(
        "dialog",
        lambda dialog: (
            problems.append(f"hypernetworks: a dialog {dialog.message}"),
            dialog.dismiss(),
        ),
    )
    return problems
