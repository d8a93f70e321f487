"""Other extensions share the page: their globals, faults and habits leave the panel and the cards
alone.

``a1111-sd-webui-tagcomplete`` declares ``var hypernetworks = []`` and assigns it again whenever its
lists are loaded; it once took the panel's own global away.
"""

from __future__ import annotations

from typing import Any

import pytest
from browser.gradios import VERSIONS
from browser.test_panel import (  # noqa: F401 - a fixture
    PANEL,
    PROMPT,
    browser,
    expect_rows,
    open_page,
    prompt,
)

BEFORE = {
    "globals of tag completion": "var hypernetworks = []; var loras = []; var embeddings = [];",
    "a frozen global": "Object.defineProperty(window, 'hypernetworks', { value: [] });",
    "prototypes extended": """
        Array.prototype.last = function () { return this[this.length - 1]; };
        Array.prototype.remove = function () { throw new Error('of a neighbour'); };
        String.prototype.format = function () { return ''; };
    """,
    "a look-alike of our own name": "var hypernetworksExtension = [];",
}
"""What a neighbour does before our scripts are loaded."""

AFTER = {
    "globals of tag completion": "var hypernetworks = [['ink', '0123']]; hypernetworks = [];",
    "a script that throws": "setTimeout(() => { throw new Error('of a neighbour'); });",
    "our own name assigned": "try { hypernetworksExtension = []; } catch {}",
}
"""What a neighbour does afterwards."""


def works(page: Any) -> None:
    """Rows follow the prompt, a slider moves the tag, a card puts its tag in and takes it out."""
    page.fill(PROMPT, "a cat <hypernet:ink:0.7>")
    expect_rows(page, 1)
    page.locator(f"{PANEL} input[type=number]").first.fill("0.4")
    page.wait_for_function(
        "selector => document.querySelector(selector).value.includes('<hypernet:ink:0.4>')",
        arg=PROMPT,
    )

    card = "hypernetworksExtension.toggle('txt2img', 'sepia', 1, '')"  # a card's onclick
    page.evaluate(card)
    assert prompt(page) == "a cat <hypernet:ink:0.4> <hypernet:sepia:1>"
    expect_rows(page, 2)
    page.evaluate(card)
    assert prompt(page) == "a cat <hypernet:ink:0.4>"
    expect_rows(page, 1)


def own(problems: list[str]) -> list[str]:
    """Errors of the console without those that the test's neighbour threw on purpose."""
    return [problem for problem in problems if "of a neighbour" not in problem]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("habit", BEFORE)
def test_what_neighbours_do_before_us(
    habit: str,
    version: str,
    browser: Any,  # noqa: F811
    addresses: dict[str, str],
) -> None:
    problems: list[str] = []
    page = open_page(browser, addresses[version], problems, script=BEFORE[habit])
    works(page)
    page.context.close()
    assert own(problems) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_what_neighbours_do_after_us(
    version: str,
    browser: Any,  # noqa: F811
    addresses: dict[str, str],
) -> None:
    problems: list[str] = []
    page = open_page(browser, addresses[version], problems)
    works(page)
    for script in AFTER.values():
        page.add_script_tag(content=script)
        works(page)
    page.context.close()
    assert own(problems) == []


def test_a_neighbour_that_rewrites_the_prompt_at_every_key(
    browser: Any,  # noqa: F811
    addresses: dict[str, str],
) -> None:
    problems: list[str] = []
    page = open_page(browser, addresses["current"], problems)
    page.evaluate(
        """selector => {
            const box = document.querySelector(selector);
            const tidy = (text) => text.replace(/\\s*,\\s*/g, ", ").replace(/ {2,}/g, " ");
            box.addEventListener("input", () => {
                if (tidy(box.value) === box.value) return;
                box.value = tidy(box.value);
                box.dispatchEvent(new Event("input", { bubbles: true }));
            });
        }""",
        PROMPT,
    )
    page.focus(PROMPT)
    page.keyboard.type("a cat ,  in ink <hypernet:ink:0.7> ,x")
    expect_rows(page, 1)
    works(page)
    page.context.close()
    assert own(problems) == []


def test_settings_that_are_no_property_of_the_window(
    browser: Any,  # noqa: F811
    addresses: dict[str, str],
) -> None:
    """Forge Neo declares its settings with ``let``: the default multiplier was always 1 there."""
    page = open_page(browser, addresses["current"], [])
    settings = "{ extra_networks_default_multiplier: 0.8, extra_networks_add_text_separator: '; ' }"
    page.add_script_tag(content=f"let opts = {settings};")
    page.fill(PROMPT, "a cat")
    page.evaluate("hypernetworksExtension.toggle('txt2img', 'ink')")
    written = prompt(page)
    page.context.close()
    assert written == "a cat; <hypernet:ink:0.8>"


def test_our_scripts_add_one_name_to_the_page(
    browser: Any,  # noqa: F811
    addresses: dict[str, str],
) -> None:
    page = open_page(browser, addresses["current"], [])
    names = page.evaluate("Object.getOwnPropertyNames(window).filter((n) => /hyper/i.test(n))")
    page.context.close()
    assert names == ["hypernetworksExtension"]
