"""The bar over the cards, the menu of a card, and completion of a tag in the prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser.plain_page import PIXEL, PROMPT, Server, plain_browser, plain_page

sync_api = pytest.importorskip("playwright.sync_api")
BAR = "#txt2img_hypernetworks_cards_html .hypernetworks-bar"
CARDS = "#txt2img_hypernetworks_cards .card:visible"


def network(name: str, **more: Any) -> dict[str, Any]:
    plain = {"preferred_multiplier": None, "activation_text": "", "suffix": ".pt", "tags": []}
    return {"name": name, "family": "SD1", "favorite": False, **plain, **more}


NETWORKS = [
    network("ink", favorite=True, tags=["line art"]),
    network("sepia", preferred_multiplier=0.6, activation_text="old photo", suffix=".safetensors"),
    network("xl", family="SDXL", tags=["line art", "big"]),
    network("any", family=None),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with plain_browser() as browser:
        yield browser


@pytest.fixture
def server() -> Server:
    return Server([dict(each) for each in NETWORKS])


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    with plain_page(browser, server) as page:
        page.wait_for_selector(f"{BAR} option[value=SDXL]", state="attached")
        yield page


def expect_cards(page: Any, *names: str) -> None:
    expected = list(names)
    page.wait_for_function(
        "expected => JSON.stringify([...document.querySelectorAll('#txt2img_hypernetworks_cards .card')]"
        ".filter((card) => card.getClientRects().length).map((card) => card.dataset.name)) === "
        "JSON.stringify(expected)",
        arg=expected,
    )


def press(page: Any, name: str) -> None:
    page.locator(BAR).get_by_role("button", name=name).click()


def choose(page: Any, name: str, item: str) -> None:
    """An item of the menu of a card."""
    card = page.locator(f'#txt2img_hypernetworks_cards .card[data-name="{name}"]')
    card.hover()
    card.get_by_role("button", name=f"More about {name}").click()
    page.get_by_role("menuitem", name=item).click()


def test_filters(page: Any) -> None:
    expect_cards(page, "ink", "sepia", "xl", "any")
    press(page, "Favourites")
    expect_cards(page, "ink")
    press(page, "Favourites")
    press(page, "Fits the model")
    expect_cards(page, "ink", "sepia", "any")
    press(page, "Fits the model")
    page.locator(f"{BAR} select").nth(0).select_option("SDXL")
    expect_cards(page, "xl")
    page.locator(f"{BAR} select").nth(0).select_option("Unknown")
    expect_cards(page, "any")
    page.locator(f"{BAR} select").nth(0).select_option("")
    page.locator(f"{BAR} select").nth(1).select_option("line art")
    expect_cards(page, "ink", "xl")
    page.reload()  # the filter is remembered
    expect_cards(page, "ink", "xl")


def test_recent_ones(page: Any) -> None:
    page.evaluate("hypernetworksExtension.toggle('txt2img', 'sepia', 1)")
    press(page, "Recent")
    expect_cards(page, "sepia")


def test_cards_that_the_webui_draws_anew_are_filtered(page: Any) -> None:
    press(page, "Favourites")
    expect_cards(page, "ink")
    page.evaluate(
        "document.querySelectorAll('.extra-network-cards').forEach((e) => { e.innerHTML = "
        "['ink', 'xl'].map((n) => `<div class=\"card\" data-name=\"${n}\">${n}</div>`).join(''); })"
    )
    expect_cards(page, "ink")
    assert page.locator(f"{CARDS} .hypernetworks-more").count() == 1


def test_the_order_is_remembered(page: Any) -> None:
    box = page.locator("#txt2img_hypernetworks_controls")
    box.get_by_text("name").click()
    box.get_by_text("direction").click()
    page.wait_for_timeout(50)
    page.reload()
    page.wait_for_selector(BAR)
    sync_api.expect(box.locator(".extra-network-control--enabled")).to_have_text("name")
    sync_api.expect(box.locator("[data-sortdir]")).to_have_attribute("data-sortdir", "Descending")


def test_favourites_and_tags(page: Any, server: Server) -> None:
    server.answers = {"favorite": {"favorite": True}, "tags": {"tags": ["new"]}}
    choose(page, "sepia", "Add to favourites")
    press(page, "Favourites")
    expect_cards(page, "ink", "sepia")
    page.once("dialog", lambda dialog: dialog.accept("new"))
    choose(page, "ink", "Tags")
    page.locator(f"{BAR} select").nth(1).select_option("new")
    expect_cards(page, "ink")
    asked = [address.partition("/v1/")[2] for address, _ in server.asked]
    assert "favorite?name=sepia&on=1" in asked
    assert "tags?name=ink&tags=new" in asked
    assert page.evaluate("window.clicked") is None, "the menu is no click on the card"


def test_inspect_convert_and_what_fails(page: Any, server: Server) -> None:
    server.answers = {"inspect": {"widths": [768]}, "convert": {"written": "sepia.pt"}}
    choose(page, "sepia", "Inspect")
    sync_api.expect(page.get_by_role("dialog")).to_contain_text("768")
    page.get_by_role("button", name="Close").click()
    choose(page, "sepia", "Convert to .pt")
    sync_api.expect(page.locator(f"{BAR} [role=status]")).to_have_text("sepia.pt was written.")
    choose(page, "ink", "Use the last image")
    status = page.locator(f"{BAR} [role=status]")
    sync_api.expect(status).to_have_text("ink: generate an image first")
    page.keyboard.press("Escape")


def test_the_last_image_becomes_the_preview(page: Any, server: Server) -> None:
    server.answers = {"set_preview": {"preview": "ink.preview.png"}}
    page.route("**/made.png", lambda route: route.fulfill(body=PIXEL, content_type="image/png"))
    page.evaluate(
        "document.querySelector('#txt2img_gallery').innerHTML = '<img src=\"/made.png\">'"
    )
    choose(page, "ink", "Use the last image")
    sync_api.expect(page.locator(f"{BAR} [role=status]")).to_contain_text("ink.preview.png")
    assert any("set_preview?name=ink" in address for address, _ in server.asked)


# What other extensions make of a prompt


@pytest.mark.parametrize(
    "rewritten",
    [
        "a cat,<hypernet:sepia:0.6>,old photo,brown",  # prompt-all-in-one, by its settings
        "a cat, <hypernet:sepia:0.6>, old photo, brown",
        "a cat , <hypernet:sepia:0.6> old  photo ,brown",
        "a cat, <hypernet:sepia:0.6>, very sharp, old photo,brown",
    ],
)
def test_blanks_around_commas_may_change(page: Any, rewritten: str) -> None:
    page.evaluate("window.opts = { extra_networks_add_text_separator: ', ' }")
    click = "hypernetworksExtension.toggle('txt2img', 'sepia', 0.6, 'old photo, brown')"
    page.fill(PROMPT, "a cat")
    page.evaluate(click)
    assert page.input_value(PROMPT) == "a cat, <hypernet:sepia:0.6> old photo, brown"
    page.fill(PROMPT, rewritten)
    page.evaluate(click)
    left = "a cat, very sharp" if "sharp" in rewritten else "a cat"
    assert page.input_value(PROMPT) == left


def test_signs_in_an_activation_text_are_no_pattern(page: Any) -> None:
    text = "(old:1.2) [a|b] c++ \\\\(x\\\\) {y} ^$. a-b/c"
    click = f"hypernetworksExtension.toggle('txt2img', 'sepia', 0.6, '{text}')"
    page.fill(PROMPT, "a cat")
    page.evaluate(click)
    page.evaluate(click)
    assert page.input_value(PROMPT) == "a cat"


# Completion


def test_a_tag_is_completed(page: Any) -> None:
    page.focus(PROMPT)
    page.keyboard.type("a cat <hypernet:")
    options = page.locator(".hypernetworks-typing [role=option]")
    sync_api.expect(options).to_have_text(["ink1 · SD1", "sepia0.6 · SD1", "xl1 · SDXL", "any1"])
    page.keyboard.type("s")
    sync_api.expect(options).to_have_count(1)
    page.keyboard.press("Enter")
    assert page.input_value(PROMPT) == "a cat <hypernet:sepia:0.6> old photo"
    page.keyboard.type(", b")
    assert page.input_value(PROMPT) == "a cat <hypernet:sepia:0.6> old photo, b"
    sync_api.expect(options.first).to_be_hidden()


def test_arrows_escape_and_the_rest_of_a_tag(page: Any) -> None:
    page.fill(PROMPT, "x <hypernet:i:0.5> y")
    page.evaluate(f"document.querySelector('{PROMPT}').setSelectionRange(12, 12)")
    page.keyboard.type("n")
    page.keyboard.press("Backspace")
    options = page.locator(".hypernetworks-typing [role=option]")
    sync_api.expect(options.first).to_be_visible()
    page.keyboard.press("Escape")
    sync_api.expect(options.first).to_be_hidden()
    page.keyboard.type("x")
    sync_api.expect(options).to_have_text(["xl1 · SDXL"])
    page.keyboard.press("Tab")
    assert page.input_value(PROMPT) == "x <hypernet:xl:1> y"


def test_another_extensions_completion_is_left_alone(page: Any) -> None:
    page.evaluate(f"document.querySelector('{PROMPT}').classList.add('autocomplete')")
    page.focus(PROMPT)
    page.keyboard.type("<hypernet:i")
    page.wait_for_timeout(300)
    assert page.locator(".hypernetworks-typing").count() == 0


# ------------------------------------------------------------------ the tab that trains

HOSTILE = "<img src=x onerror=window.hacked=1>"


def training(**more: Any) -> dict[str, Any]:
    """The server's answer about a training that runs."""
    run = {"step": 5, "best_step": None, "best_loss": None, "saved": [3, 5], "can_go_on": True}
    return {
        "version": "1", "running": True, "kept": None, "waiting": [],
        "runs": [{"name": HOSTILE, "has_preview": False, **run}],
        "setup": {"able": True, "running": False, "said": "", "why": ""},
        "parts": {"progress": "<progress max=9 value=5></progress>", "messages": "", "curves": "",
                  "previews": ""},
        **more,
    }  # fmt: skip


def until_asked(page: Any, server: Server, part: str) -> None:
    """Wait for a request of the page's; it is answered while the page is waited for."""
    for _ in range(200):
        if any(part in address.replace("+", " ") for address, _ in server.asked):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{part} was not asked for: {server.asked}")


def test_a_training_is_followed_steered_and_found_among_the_cards(
    browser: Any, server: Server
) -> None:
    server.answers["training"] = training(waiting=["next"])
    with plain_page(browser, server) as page:
        page.evaluate(
            "document.body.insertAdjacentHTML('afterbegin', '<div class=hypernetworks-training></div>')"
        )
        tab = page.locator(".hypernetworks-training")
        sync_api.expect(tab.locator("progress")).to_have_attribute("value", "5")
        sync_api.expect(tab.get_by_label("Runs").locator("b")).to_have_text(HOSTILE)
        sync_api.expect(tab.get_by_role("button", name="Set up")).to_be_hidden()

        tab.get_by_role("button", name="Remove next").click()
        tab.get_by_role("button", name=f"Continue {HOSTILE}").click()
        tab.get_by_role("button", name="Interrupt").click()
        for asked in (
            "/training/remove?name=next",
            f"/training/continue?name={HOSTILE}&number=100",
            "/training/interrupt",
        ):
            until_asked(page, server, asked)

        done = '<button class="studio-try" data-name="ink">Add</button>'
        server.answers["training"] = training(
            running=False, kept="ink 1", version="2", parts={"progress": done}
        )
        tab.get_by_role("button", name="Add", exact=True).click()
        assert page.input_value(PROMPT) == "<hypernet:ink:1>"
        sync_api.expect(tab.get_by_role("button", name="Interrupt")).to_be_hidden()
        until_asked(page, server, "/refresh")
        assert page.evaluate("window.hacked") is None


def test_the_forms_lists_are_renewed_in_view_and_after_a_training(
    browser: Any, server: Server
) -> None:
    """gradio gives each new page the lists of the webui's start."""
    server.answers["training"] = training()
    with plain_page(browser, server) as page:
        page.evaluate(
            """document.body.insertAdjacentHTML("afterbegin",
                `<div id=tab><button id=hypernetworks_train_refresh
                    onclick="this.textContent = 1 + Number(this.textContent)">0</button>
                <div class=hypernetworks-training></div></div>`)"""
        )
        clicks = page.locator("#hypernetworks_train_refresh")
        sync_api.expect(clicks).to_have_text("1")
        page.locator("#tab").evaluate("(tab) => { tab.hidden = true; }")
        page.wait_for_timeout(2500)
        assert clicks.text_content() == "1"
        page.locator("#tab").evaluate("(tab) => { tab.hidden = false; }")
        sync_api.expect(clicks).to_have_text("2")
        server.answers["training"] = training(running=False, kept="ink 1", version="2")
        sync_api.expect(clicks).to_have_text("3")


def test_a_webui_that_cannot_train_offers_the_set_up(browser: Any, server: Server) -> None:
    why = {"able": False, "running": False, "said": "", "why": "there is no diffusers"}
    server.answers["training"] = training(setup=why, running=False)
    with plain_page(browser, server) as page:
        page.evaluate(
            "document.body.insertAdjacentHTML('afterbegin', '<div class=hypernetworks-training></div>')"
        )
        tab = page.locator(".hypernetworks-training")
        sync_api.expect(tab.get_by_text("There is no diffusers")).to_be_visible()
        server.answers["training"] = training(
            setup={**why, "running": True, "said": "Installing torch"}, running=False
        )
        tab.get_by_role("button", name="Make the extension's own environment").click()
        sync_api.expect(tab.get_by_text("Installing torch")).to_be_visible()
        until_asked(page, server, "/training/setup")
