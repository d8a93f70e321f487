"""Markup and script wherever a file or a person can put text, looked at in a real browser: it is
shown, and no more."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browser.studio_page import PROMPT, generate, studio
from chromium import CHROMIUM, FLAGS, NO_CHROMIUM
from reference import Recipe

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
SCRIPT = "window.__pwned=1"
PAYLOADS = (
    f"<img src=x onerror={SCRIPT}>",
    f'"><svg onload={SCRIPT}>',
    f"<script>{SCRIPT}<\\script>",
    f"'-{SCRIPT}-'",
    f"javascript:{SCRIPT}",
    "</textarea></title></style><iframe srcdoc='<script>parent.__pwned=1</script>'>",
    f'[a](javascript:{SCRIPT}) ![b](x" onerror="{SCRIPT})',
    f"{{{{constructor.constructor('{SCRIPT}')()}}}} ${{{SCRIPT}}}",
    f'<a href="javascript:{SCRIPT}">x</a><details open ontoggle={SCRIPT}>',
    "<style>*{display:none}</style><base href=//evil.example>",
)
ALL = " ".join(PAYLOADS)
PLANTED = (
    "img[src='x'], [onerror], [onload], [ontoggle], [srcdoc], base:not([href='./']), "
    "a[href^='javascript:']"
)


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks whose names, folders, metadata and side-cars are markup."""
    if os.name == "nt":
        pytest.skip("file names can't hold markup there")
    folder = tmp_path_factory.mktemp("hostile")
    for number, payload in enumerate(PAYLOADS):
        name = payload.replace("/", "\u2215")[:120]
        place = folder / name if number % 2 else folder
        place.mkdir(exist_ok=True)
        content = Recipe((96, 192), seed=number).content()
        content |= dict.fromkeys(
            ("name", "sd_checkpoint", "sd_checkpoint_name", "optional_info"), payload
        )
        path = place / (f"net {number}.pt" if number % 3 == 0 else f"{name}.pt")
        torch.save(content, path)
        beside = ("description", "activation text", "sd version", "notes")
        path.with_suffix(".json").write_text(
            json.dumps(dict.fromkeys(beside, ALL)), encoding="utf8"
        )
    return folder


@pytest.fixture(scope="module")
def page(hostile_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One window for all; whatever opens a dialog, leaves the page, or asks another machine is
    noted."""
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    with (
        studio("--hypernetworks", str(hostile_folder)) as address,
        sync_api.sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(20_000)
        page.noted = []
        page.on("dialog", lambda dialog: page.noted.append(dialog.message) or dialog.dismiss())
        page.on("popup", lambda other: page.noted.append(other.url))
        page.on(
            "request",
            lambda r: (
                None if r.url.startswith((address, "data:", "blob:")) else page.noted.append(r.url)
            ),
        )
        page.goto(address)
        page.wait_for_selector(".studio-card")
        page.wait_for_selector(".studio-opened .hypernetworks-filled")
        yield page
        browser.close()


def planted(page: Any) -> list[str]:
    """Elements of the kinds above, but not gradio's own link to a style sheet."""
    found: list[str] = page.evaluate(
        "s => [...document.querySelectorAll(s)].filter(e => e.tagName !== 'LINK').map(e => "
        "e.outerHTML.slice(0, 200))",
        PLANTED,
    )
    return found


def harmless(page: Any) -> None:
    """Nothing ran, nothing was planted, nobody was asked."""
    assert page.evaluate("window.__pwned") is None
    assert planted(page) == []
    assert page.noted == []


def test_cards_and_the_panel(page: Any) -> None:
    assert page.locator(".studio-card").count() >= len(PAYLOADS)
    for card in page.locator(".studio-card:not([disabled])").all()[:8]:
        card.hover()
        card.click()
    expect(page.locator(PROMPT)).to_have_value(re.compile("<hypernet:"))
    harmless(page)


def test_prompts_tags_and_messages(page: Any) -> None:
    tags = " ".join(
        f"<hypernet:{payload.replace('>', '').replace(':', ' ')}:1>" for payload in PAYLOADS
    )
    generate(page, f"a cat {tags} {ALL} <hypernet:net 0:{SCRIPT}>", steps=1)
    expect(page.locator("#hypernetworks_messages")).to_contain_text("there is no hypernetwork")
    harmless(page)


def test_inspecting(page: Any) -> None:
    page.get_by_role("tab", name="Inspect").click()
    for name in ("net 0", "net 3"):
        page.locator("#inspect_name input").click()
        page.get_by_role("option", name=name).first.click()
        expect(page.locator("#inspect_report svg").first).to_be_visible()
        harmless(page)
    page.get_by_role("tab", name="Image").click()


def test_a_pictures_infotext(page: Any, tmp_path: Path) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    metadata = PngInfo()
    pairs = ", ".join(
        f'{key}: "{PAYLOADS[0]}"' for key in ("Sampler", "Model", "Hypernet hashes", "Size")
    )
    metadata.add_text(
        "parameters", f"{ALL} <hypernet:net 0:1>\nNegative prompt: {ALL}\nSteps: 1, {pairs}"
    )
    Image.new("RGB", (32, 32)).save(tmp_path / "hostile.png", pnginfo=metadata)
    page.set_input_files("#hypernetworks_restore input[type=file]", str(tmp_path / "hostile.png"))
    expect(page.locator("#hypernetworks_messages")).to_contain_text("is not known here")
    harmless(page)


def test_a_file_that_is_added(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "onerror=window.__pwned=1 'x'.pt"
    path.write_bytes(b"no network")
    page.set_input_files(".studio-tools input[type=file]", str(path))
    expect(page.locator(".studio-toast")).to_contain_text("onerror")
    harmless(page)


def test_this_would_be_noticed(page: Any) -> None:
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', `<i id=probe><img src=x "
        "onerror=window.__pwned=1></i>`)"
    )
    page.wait_for_function("window.__pwned === 1")
    assert len(planted(page)) == 1
    page.evaluate("document.getElementById('probe').remove(); delete window.__pwned")
    harmless(page)
