"""A real browser uses the studio as a newcomer and as an old hand do."""

from __future__ import annotations

import json
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser.studio_page import (
    INFOTEXT,
    NETWORKS,
    PROMPT,
    expect,
    generate,
    open_window,
    picture,
    press_generate,
    studio,
)
from chromium import CHROMIUM, NO_CHROMIUM, stand_still

HOSTILE = "<img src=x onerror=window.hacked=1>"


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's networks: one in a folder, and one whose name is markup."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "styles").mkdir()
    shutil.copy(NETWORKS / "ink.safetensors", folder / "styles" / "pen.safetensors")
    if os.name != "nt":
        shutil.copy(NETWORKS / "ink.safetensors", folder / f"{HOSTILE}.safetensors")
    return folder


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for runs, and in it eight pictures to learn from."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("training")
    (folder / "mine" / "blues").mkdir(parents=True)
    for number in range(8):
        shade = Image.new("RGB", (96, 96), (10 * number, 10, 160 + 10 * number))
        shade.save(folder / "mine" / "blues" / f"a cat on blue {number}.png")
    return folder


@pytest.fixture(scope="module")
def address(own_folder: Path, training: Path) -> Iterator[str]:
    """One studio for all."""
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    folders = ["--training", str(training / "own"), "--pictures", str(training / "mine")]
    images = ["--images", str(training / "images")]
    with studio("--hypernetworks", str(own_folder), *folders, *images) as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A fresh window; the test fails on any console error or request to another machine."""
    problems: list[str] = []
    page = open_window(browser, address, problems)
    yield page
    assert page.evaluate("window.hacked") is None
    page.context.close()
    assert problems == []


def card(page: Any, name: str) -> Any:
    return page.locator(".studio-card").filter(
        has=page.locator("bdi").get_by_text(name, exact=True)
    )


def test_a_newcomer_generates_clicks_a_card_and_moves_the_slider(page: Any) -> None:
    expect(page.locator("#hypernetworks_progress")).to_contain_text("No image yet")
    plain = generate(page, "a red apple on blue")
    ink = card(page, "ink")
    expect(ink).to_have_attribute("aria-pressed", "false")
    ink.click()
    assert page.input_value(PROMPT) == "a red apple on blue <hypernet:ink:1>"
    expect(ink).to_have_attribute("aria-pressed", "true")
    with_ink = generate(page)
    slider = page.get_by_role("slider", name="Multiplier of ink")
    slider.press("Home")
    assert page.input_value(PROMPT) == "a red apple on blue <hypernet:ink:-1>"
    other = generate(page)
    assert len({plain, with_ink, other}) == 3
    assert page.input_value(INFOTEXT).startswith(
        "a red apple on blue <hypernet:ink:-1>\nSteps: 6, Sampler: DDIM"
    )
    ink.click()
    assert page.input_value(PROMPT) == "a red apple on blue"


def test_a_picture_that_is_dropped_brings_everything_back(page: Any, tmp_path: Path) -> None:
    page.fill("#hypernetworks_negative textarea", "text")
    page.fill("#hypernetworks_seed input", "77")
    made = generate(page, "a star on green <hypernet:night:0.5>")
    (tmp_path / "star.png").write_bytes(made)
    infotext = page.input_value(INFOTEXT)
    page.reload()
    page.wait_for_selector(".studio-opened .hypernetworks-filled")
    page.set_input_files("#hypernetworks_restore input[type=file]", str(tmp_path / "star.png"))
    expect(page.locator("#hypernetworks_messages")).to_contain_text("settings are restored")
    expect(page.locator(PROMPT)).to_have_value("a star on green <hypernet:night:0.5>")
    expect(page.locator("#hypernetworks_negative textarea")).to_have_value("text")
    expect(page.locator("#hypernetworks_seed input")).to_have_value("77")
    assert generate(page) == made
    assert page.input_value(INFOTEXT) == infotext


def test_what_is_restored_is_generated_whatever_is_usual(page: Any, tmp_path: Path) -> None:
    from PIL import Image

    from hypernetworks.hosts.diffusers import Picture, save_png

    settings = "Steps: 200, Sampler: Euler a, CFG scale: 0, Seed: 5, Size: 32x32"
    save_png(Picture(Image.new("RGB", (8, 8)), f"a cat\n{settings}"), tmp_path / "wide.png")
    page.set_input_files("#hypernetworks_restore input[type=file]", str(tmp_path / "wide.png"))
    expect(page.locator("#hypernetworks_messages")).to_contain_text("settings are restored")
    steps = page.locator("#hypernetworks_steps input[type=number]")
    expect(steps).to_have_value("200")
    press_generate(page)
    expect(page.locator("#hypernetworks_progress")).to_contain_text("of 200")
    picture(page)
    expect(page.locator(INFOTEXT)).to_have_value(
        re.compile("Steps: 200, Sampler: Euler a, CFG scale: 0.0, Seed: 5, Size: 32x32")
    )

    slider = page.get_by_role("slider", name="range slider for Steps")
    expect(slider).to_have_count(1)
    slider.fill("30")
    expect(steps).to_have_value("30")
    page.fill("#hypernetworks_width input", "99999")
    page.click("#hypernetworks_generate")
    expect(page.locator("#hypernetworks_messages")).to_contain_text("Width: 99999 is not possible")


def test_a_long_job_is_interrupted_within_a_step(page: Any) -> None:
    page.fill(PROMPT, "a cat")
    page.fill("#hypernetworks_steps input[type=number]", "150")
    page.locator("#hypernetworks_steps input[type=number]").blur()
    page.click("#hypernetworks_generate")
    expect(page.locator(".studio-progress p")).to_contain_text(re.compile(r"Step \d+ of 150"))
    expect(page.locator(".studio-progress img")).to_be_visible()  # the picture is forming
    before = int(re.findall(r"Step (\d+)", page.inner_text(".studio-progress p"))[0])
    page.keyboard.press("Escape")
    expect(page.locator("#hypernetworks_messages")).to_contain_text("Interrupted after")
    after = int(re.findall(r"after (\d+) of 150", page.inner_text("#hypernetworks_messages"))[0])
    assert before <= after < 149


def test_nothing_hostile_becomes_markup(page: Any) -> None:
    if os.name != "nt":
        expect(card(page, HOSTILE)).to_be_disabled()
    generate(page, f"a cat <hypernet:{HOSTILE}:1> {HOSTILE}", steps=1)
    expect(page.locator("#hypernetworks_messages")).to_contain_text("no hypernetwork")
    assert page.locator("#hypernetworks_messages :is(img, script)").count() == 0


def test_pages_of_others_and_other_files_get_nothing(address: str, own_folder: Path) -> None:
    def status(path: str, method: str = "GET", **headers: str) -> int:
        body = b"" if method == "POST" else None
        request = urllib.request.Request(address + path, method=method, headers=headers, data=body)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert status("/hypernetworks/v1/list") == 200
    assert status("/hypernetworks/v1/refresh", "POST", Origin=address) == 200
    for path in ("/", "/hypernetworks/v1/list", "/gradio_api/info"):
        assert status(path, Host="evil.example") == 403
    own, of_gradio = (
        ("/refresh", "/add?name=a.pt"),
        ("/gradio_api/upload", "/gradio_api/queue/join"),
    )
    for path in (*(f"/hypernetworks/v1{route}" for route in own), *of_gradio):
        assert status(path, "POST", Origin="http://evil.example") == 403
    secret = own_folder.parent / "secret.png"
    secret.write_bytes(b"secret")
    outside = ("/hypernetworks/v1/preview?name=../secret", "/hypernetworks/files/..%2Fpage.py")
    for path in (f"/gradio_api/file={secret}", *outside):
        assert status(path) in (403, 404)
    assert status("/hypernetworks/v1/add?name=..%2Fa.pt", "POST") == 422
    assert status("/hypernetworks/v1/add?name=a.pt", "POST") == 422
    assert not list(own_folder.parent.glob("a.pt")) + list(own_folder.glob("a.pt"))


def test_cards_search_folders_and_a_file_that_is_added(
    page: Any, own_folder: Path, tmp_path: Path
) -> None:
    cards = page.locator(".studio-card")
    page.get_by_label("Search networks").fill("styl pe")
    expect(cards).to_have_count(1)
    page.get_by_label("Search networks").fill("nothing like it")
    expect(page.locator(".studio-cards .studio-empty")).to_contain_text("Clear the search")
    page.get_by_label("Search networks").fill("")
    page.get_by_label("Folder").select_option("styles")
    expect(cards).to_have_count(1)
    page.get_by_label("Folder").select_option("All folders")
    expect(card(page, "ink").locator("img")).to_be_visible()
    count = cards.count()
    shutil.copy(NETWORKS / "sepia.safetensors", tmp_path / "tea.safetensors")
    page.set_input_files(".studio-tools input[type=file]", str(tmp_path / "tea.safetensors"))
    expect(page.locator(".studio-toast")).to_contain_text("Added tea")
    expect(cards).to_have_count(count + 1)
    assert (own_folder / "tea.safetensors").read_bytes() == (
        NETWORKS / "sepia.safetensors"
    ).read_bytes()
    card(page, "tea").click()
    expect(page.get_by_role("slider", name="Multiplier of tea")).to_be_visible()

    # With more cards than fit, the wheel moves them.
    page.locator(".studio-grid").evaluate("(grid) => { grid.style.minHeight = '3000px'; }")
    page.locator("#studio_cards").hover()
    page.mouse.wheel(0, 600)
    page.wait_for_function("document.getElementById('studio_cards').scrollTop > 0")


def test_a_drawn_schedule_changes_the_picture(page: Any) -> None:
    constant = generate(page, "a cat <hypernet:ink:1>")
    page.get_by_role("button", name="Draw ink over the steps").click()
    last = page.get_by_role("slider", name="Point 2 of 2 of ink")
    paper = page.locator(".hypernetworks-curve > svg")
    expect(paper).to_have_attribute("aria-label", re.compile("from 1 to 1 over 6 steps"))
    last.locator("circle").last.hover()  # which waits until it stands still
    at, box = last.locator("circle").last.bounding_box(), paper.bounding_box()
    page.mouse.down()
    page.mouse.move(at["x"] + 5, box["y"] + box["height"] * 82 / 104, steps=4)
    page.mouse.up()
    assert page.input_value(PROMPT) == "a cat <hypernet:ink:1@0,0@1>"
    assert generate(page) != constant
    assert page.input_value(INFOTEXT).startswith("a cat <hypernet:ink:1@0,0@1>\n")
    page.fill(PROMPT, "a cat <hypernet:ink:0@0,1@0.5>")
    expect(paper).to_have_attribute("aria-label", re.compile("from 0 to 1"))


def test_the_keyboard_is_enough(page: Any) -> None:
    page.focus(PROMPT)
    page.keyboard.press("Control+A")
    page.keyboard.type("a moon on blue")
    card(page, "ink").focus()
    page.keyboard.press("Space")
    assert page.input_value(PROMPT) == "a moon on blue <hypernet:ink:1>"
    page.get_by_role("slider", name="Multiplier of ink").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#hypernetworks_progress")).to_contain_text("image in")
    assert page.input_value(INFOTEXT).startswith("a moon on blue <hypernet:ink:0.95>")


def test_two_windows_do_not_mix_their_networks(page: Any, browser: Any, address: str) -> None:
    problems: list[str] = []
    other = open_window(browser, address, problems)
    alone = generate(page, "a cat <hypernet:ink:1>", steps=6)
    other.fill("#hypernetworks_steps input[type=number]", "6")
    other.locator("#hypernetworks_steps input[type=number]").blur()
    other.fill(PROMPT, "a cat <hypernet:sepia:1>")
    press_generate(page)
    press_generate(other)
    assert picture(other) != alone
    assert picture(page) == alone
    assert "ink" not in other.input_value(INFOTEXT)
    other.context.close()
    assert problems == []


def fill_multipliers(page: Any, values: str) -> None:
    """Type them once the field is there with what it begins with: gradio mounts a tab when it is
    first shown."""
    field = page.locator("#compare_x_values :is(input, textarea)")
    expect(field).not_to_have_value("")
    field.fill(values)


UNFITTING = """() => {
    const scroll = ["auto", "scroll"];
    const scrolls = (e) => e && (scroll.includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
    const said = (e) => `${e.tagName}#${e.id}.${e.getAttribute("class")} "${e.textContent.slice(0, 40)}"`;
    const shown = [...document.querySelectorAll("main *")].filter((e) => {
        const seen = e.checkVisibility({ opacityProperty: true, visibilityProperty: true });
        return seen && e.getClientRects().length && !e.closest(".visually-hidden, .hypernetworks-live");
    });
    const outside = shown.filter((e) => {
        const { left, right, width } = e.getBoundingClientRect();
        return width > 1 && (right > innerWidth + 1 || left < -1) && !scrolls(e);
    });
    const cut = shown.filter((e) => {
        const style = getComputedStyle(e);
        const text = [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        return text && e.clientWidth > 1 && e.scrollWidth > e.clientWidth + 1 && style.overflowX !== "visible"
            && style.textOverflow !== "ellipsis" && !["TEXTAREA"].includes(e.tagName) && !scrolls(e);
    });
    const squeezed = shown.filter((e) => {
        const text = [...e.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join("");
        const choice = e.matches("input[role=listbox], input[role=combobox]") && e.scrollWidth > e.clientWidth + 1;
        return choice || (text.length > 12 && e.getBoundingClientRect().width < 44 && !e.closest("svg"));
    });
    const page = document.documentElement.scrollWidth > innerWidth ? ["the page scrolls sideways"] : [];
    const found = { outside, cut, squeezed };
    return [...page, ...Object.entries(found).flatMap(([what, some]) => some.map((e) => `${what}: ${said(e)}`))];
}"""


def open_training(page: Any, name: str, steps: int) -> None:
    """Fill the Train tab's fields so that a few steps show."""
    page.get_by_role("tab", name="Train").click()
    expect(page.locator("#train_size")).to_contain_text("parameters")
    page.fill("#train_name :is(input, textarea)", name)
    page.fill("#train_steps input", str(steps))
    page.fill("#train_rate :is(input, textarea)", "0.05")
    page.fill("#train_preview_every input", "2")
    page.fill("#train_previews textarea", "a cat on red")
    page.get_by_role("button", name="More settings").click()
    page.locator("#train_more").get_by_role("button", name=re.compile("^Learning")).click()
    page.fill("#train_batch input", "1")  # one image a step is enough to see something


def choose_folder(page: Any) -> None:
    assert page.evaluate("document.querySelector('#train_key input').readOnly")  # nothing typed
    page.locator("#train_key input").click()
    page.get_by_role("option", name="mine/blues (8 images)").click()


@pytest.fixture
def trainee(page: Any) -> Iterator[Any]:
    """A page whose training ends with the test, whatever happens: the others need the model."""
    yield page
    page.get_by_role("tab", name="Train").click()
    page.click("#train_interrupt")


def test_a_network_is_trained_interrupted_used_and_finished(
    trainee: Any, browser: Any, address: str, own_folder: Path, training: Path
) -> None:
    # A second try must not go on with the run of the first one.
    shutil.rmtree(training / "own" / "runs" / "azure", ignore_errors=True)
    for left in own_folder.glob("azure*"):
        left.unlink()
    page, problems = trainee, list[str]()
    plain = generate(page, "a cat on red", steps=4)
    open_training(page, "azure", 5000)
    page.click("#train_start")
    expect(page.locator("#train_told")).to_contain_text("choose a folder")
    choose_folder(page)
    page.click("#train_start")
    expect(page.locator("#train_progress")).to_contain_text(
        re.compile(r"Step [3-9]\d* of 5000"), timeout=180_000
    )
    expect(page.locator("#train_progress dl")).to_contain_text("steps per second")
    expect(page.locator("#train_curves svg")).to_have_count(3)
    expect(page.locator("#train_previews_shown img").nth(1)).to_be_visible()
    look_from_another_window(browser, address, problems)
    page.click("#train_interrupt")
    expect(page.locator("#train_messages")).to_contain_text("Interrupted after")
    expect(card(page, "azure")).to_be_visible()
    assert (own_folder / "azure.safetensors").exists()
    page.get_by_role("button", name="Add it to the prompt").click()
    assert page.input_value(PROMPT) == "a cat on red <hypernet:azure:1>"
    page.get_by_role("tab", name="Image").click()
    half = generate(page, steps=4)
    assert half != plain
    assert (
        generate(page, "a cat on red", steps=4) == plain
    )  # the training has left nothing behind in the model
    page.get_by_role("tab", name="Train").click()
    done = int(re.findall(r"after (\d+) steps", page.inner_text("#train_messages"))[0])
    page.fill("#train_steps input", str(done + 2))
    page.fill("#train_previews textarea", "")
    page.click("#train_start")
    expect(page.locator("#train_progress")).to_contain_text(
        f"after {done + 2} steps", timeout=180_000
    )
    use_run(page, done + 2)
    start_over(page)
    page.get_by_role("tab", name="Image").click()
    assert generate(page, "a cat on red <hypernet:azure:1>", steps=4) not in (plain, half)
    assert problems == []


def use_run(page: Any, steps: int) -> None:
    """Its row compares what it has saved, and brings its settings back into the fields."""
    page.get_by_role("button", name="Compare steps of azure").click()
    expect(page.get_by_label("Values of the columns")).to_have_value("azure")
    page.get_by_role("tab", name="Train").click()
    page.fill("#train_steps input", "7")
    page.get_by_role("button", name="Change settings of azure").click()
    expect(page.locator("#train_told")).to_contain_text("press Train to go on")
    expect(page.locator("#train_steps input")).to_have_value(str(steps))
    expect(page.get_by_label("Start over")).not_to_be_checked()


def start_over(page: Any) -> None:
    """It needs the other tick as well, and is not ticked for longer: what is trained now is not
    thrown away."""
    page.fill("#train_steps input", "2")
    tick = page.get_by_label("Start over")
    tick.check()
    page.click("#train_start")
    expect(page.locator("#train_told")).to_contain_text('tick "Replace"')
    expect(tick).to_be_checked()
    page.get_by_label("Replace a network").check()
    page.click("#train_start")
    expect(tick).not_to_be_checked()
    expect(page.locator("#train_progress")).to_contain_text("after 2 steps", timeout=180_000)


NEXT_STEP = """last => {
    const step = Number(/Step (\\d+)/.exec(document.querySelector("#train_progress").innerText)?.[1] ?? -1);
    return step > last ? step : null;
}"""


def look_from_another_window(browser: Any, address: str, problems: list[str]) -> None:
    """It shows the training, can't begin another, and its own picture waits, until it is closed."""
    other = open_window(browser, address, problems)
    other.get_by_role("tab", name="Train").click()
    expect(other.locator("#train_progress")).to_contain_text("azure")
    steps = [-1]
    for _ in range(3):  # it follows, and not only at its first look
        found = other.wait_for_function(NEXT_STEP, arg=steps[-1], timeout=180_000)
        steps.append(found.json_value())
    assert steps == sorted(set(steps))
    other.click("#train_example")
    expect(other.locator("#train_told")).to_contain_text("is being trained")
    other.get_by_role("tab", name="Image").click()
    other.fill(PROMPT, "a cat")
    press_generate(other)
    expect(other.locator("#hypernetworks_progress")).to_contain_text(
        'Waiting for the training of "azure"'
    )
    other.click("#hypernetworks_interrupt")
    expect(other.locator("#hypernetworks_messages")).to_contain_text(
        "Interrupted before it started"
    )
    other.context.close()


def test_pictures_are_sent_and_a_name_is_not_taken_twice(
    page: Any, training: Path, own_folder: Path
) -> None:
    shutil.copy(NETWORKS / "ink.safetensors", own_folder / "taken.safetensors")
    before = (own_folder / "taken.safetensors").read_bytes()
    sent = sorted((training / "mine" / "blues").iterdir())[:3]
    open_training(page, "taken", 2)
    page.set_input_files("#train_upload input[type=file]", [str(path) for path in sent])
    expect(page.locator("#train_upload")).to_contain_text("a cat on blue")
    expect(page.locator(".studio-crops img")).to_have_count(3)
    captions = page.locator("#train_sent textarea:visible")
    expect(captions).to_have_count(3)
    captions.nth(0).fill("a blue cat")
    page.get_by_label("Leave out").nth(1).check()
    page.click("#train_start")
    expect(page.locator("#train_told")).to_contain_text("in the library already")
    assert (own_folder / "taken.safetensors").read_bytes() == before
    page.fill("#train_name :is(input, textarea)", "sent ones")
    page.click("#train_start")
    expect(page.locator("#train_progress")).to_contain_text(
        re.compile("sent ones.*after 2 steps", re.DOTALL), timeout=180_000
    )
    for _ in range(100):  # the library gets the file after the last step is shown
        if (own_folder / "sent ones.png").exists():
            break
        page.wait_for_timeout(100)
    assert (own_folder / "sent ones.safetensors").exists()
    kept = training / "own" / "pictures" / "taken"  # from the first try on
    names = ["a cat on blue 0.png", "a cat on blue 0.txt", "a cat on blue 2.png"]
    assert sorted(path.name for path in kept.iterdir()) == names
    assert (kept / names[1]).read_text(encoding="utf-8") == "a blue cat\n"
    assert (own_folder / "sent ones.png").exists()


WIDTHS = ((1280, 900), (390, 844), (1920, 1080))
BY_HAND = """() => {
    // what axe-core found once: text too pale, fields without a name, targets too small for a finger
    const named = (e) => e.labels?.length || e.getAttribute("aria-label") || e.getAttribute("aria-labelledby")
        || e.title || e.textContent.trim() || e.closest("label");
    const shown = [...document.querySelectorAll("main :is(button, input, textarea, select)")]
        .filter((e) => e.checkVisibility() && e.getClientRects().length && e.getBoundingClientRect().width > 1);
    const nameless = shown.filter((e) => !named(e)).map((e) => `no name: ${e.outerHTML.slice(0, 90)}`);
    const isList = (e) => e.matches("ul:not([role]), ol, [role=list], [role=listbox]");
    const lists = [...document.querySelectorAll("li")].filter((e) => !isList(e.parentElement))
        .map((e) => `list item in ${e.parentElement.outerHTML.slice(0, 60)}`);
    const small = innerWidth > 760 ? [] : shown.filter((e) => {
        const { width, height } = e.getBoundingClientRect();
        return e.matches("button") && Math.min(width, height) < 23.5;
    }).map((e) => `small: ${e.outerHTML.slice(0, 90)}`);
    return [...nameless, ...lists, ...small];
}"""


def fits(page: Any, what: str) -> None:
    """At all widths, light and dark, nothing is cut off, nameless or out of reach."""
    for number, (width, height) in enumerate(WIDTHS):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if number % 2 else "light")
        page.wait_for_timeout(150)  # gradio moves tabs into its menu, and back
        stand_still(page)
        assert page.evaluate(UNFITTING) == [], f"{what} at {width}"
        assert page.evaluate(BY_HAND) == [], f"{what} at {width}"
    page.set_viewport_size({"width": 1280, "height": 900})


def test_every_state_fits(page: Any, tmp_path: Path) -> None:
    expect(page.get_by_role("tab")).to_have_count(7)
    page.set_viewport_size({"width": 2560, "height": 1200})
    box = page.locator("#studio_columns").bounding_box()
    assert abs(box["x"] - (2560 - box["x"] - box["width"])) < 20  # in the middle
    fits(page, "the first screen")
    long = "a_name_without_any_break_" * 4
    generate(
        page,
        f"a cat <hypernet:ink:0@0,1@0.5:start=0.1> <hypernet:{long}:0,5> <hypernet:sepia:0.5>",
        steps=2,
    )
    expect(page.locator(".hypernetworks-curve:visible")).to_have_count(1)
    fits(page, "an image")
    page.get_by_role("tab", name="Compare").click()
    fill_multipliers(page, "0, 1")
    page.click("#compare_start")
    expect(page.locator("#compare_sheet img")).to_have_count(4, timeout=180_000)
    fits(page, "a sheet")
    page.get_by_role("tab", name="Inspect").click()
    page.locator("#inspect_name input").click()
    page.get_by_role("option", name="ink", exact=True).click()
    expect(page.locator("#inspect_report svg").first).to_be_visible()
    fits(page, "a report")
    open_training(page, "trained here", 3)
    choose_folder(page)
    page.click("#train_start")
    expect(page.locator("#train_progress")).to_contain_text("after 3 steps", timeout=180_000)
    for part in ("Network", "Images", "Files"):
        page.locator("#train_more").get_by_role("button", name=re.compile(f"^{part}")).click()
    expect(page.locator("#train_template")).to_be_visible()
    fits(page, "a training")
    page.get_by_role("tab", name="Model").click()
    page.get_by_label("A checkpoint").click()
    page.get_by_label("Path of a checkpoint").fill(str(tmp_path / f"{long}.safetensors"))
    page.click("#model_load")
    expect(page.locator("#model_messages")).to_contain_text("no such file")
    fits(page, "a wrong path")
    page.get_by_role("tab", name="Gallery").click()
    expect(page.locator(".studio-images img").first).to_be_visible()
    fits(page, "the gallery")


TRY = """() => {
    const button = document.createElement("button");
    button.className = "studio-try";
    button.dataset.name = "sepia";
    document.body.append(button);
    button.click();
}"""
COUNT_CLICKS = """() => {
    window.clicks = 0;
    document.getElementById("hypernetworks_generate").addEventListener("click", () => { window.clicks += 1; });
}"""
READ_ONLY = """(place) => {
    document.querySelector(place).focus();
    return document.activeElement.matches(place) && document.activeElement.readOnly;
}"""
DROP = """([name, content]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([content], name));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
}"""


def test_keys_drops_and_the_gallery(browser: Any, address: str) -> None:
    problems: list[str] = []
    page = open_window(browser, address, problems)
    prompt = page.locator(PROMPT)
    page.evaluate(TRY)  # what a training offers: it replaces the example's tag
    expect(prompt).to_have_value("a strawberry on blue <hypernet:sepia:1>")
    page.fill(PROMPT, "a moon on blue")
    page.get_by_role("tab", name="Compare").click()
    page.evaluate(COUNT_CLICKS)
    page.locator("#compare_x input").press("Control+Enter")
    page.keyboard.press("Escape")
    assert page.evaluate("window.clicks") == 0  # no image behind the tab
    card(page, "ink").click()
    expect(prompt).to_have_value("a moon on blue <hypernet:ink:1>")
    page.focus(PROMPT)
    page.keyboard.press("Control+z")
    expect(prompt).to_have_value("a moon on blue")
    page.keyboard.press("Control+Shift+z")
    expect(prompt).to_have_value("a moon on blue <hypernet:ink:1>")

    page.evaluate(DROP, ["notes.txt", "x"])
    expect(page.locator(".studio-toast")).to_contain_text("Drop a hypernetwork")
    page.evaluate(DROP, ["wrong.pt", "x"])
    expect(page.locator(".studio-toast")).to_contain_text("wrong.pt was not added")
    assert page.inner_text(".studio-toast").count("wrong.pt") == 1

    expect(page.locator(".studio-tokens")).to_have_text(re.compile(r"^\d+/30$"))
    generate(page, steps=1)  # on another tab: the image is shown
    expect(page.get_by_role("tab", name="Image")).to_have_attribute("aria-selected", "true")
    # Again and again: what still happens after a generation may take the focus away.
    page.wait_for_function(READ_ONLY, arg=INFOTEXT)
    page.fill(PROMPT, "something else")
    page.get_by_role("tab", name="Gallery").click()
    page.locator(".studio-images button").first.click()
    page.get_by_role("button", name="Use prompt").click()
    expect(prompt).to_have_value("a moon on blue <hypernet:ink:1>")

    page.fill("#hypernetworks_seed input", "5")
    written = "a moon, 'Seed: 77'\nSteps: up the hill"
    generate(page, written, steps=1)
    page.fill(PROMPT, "something else")
    page.fill("#hypernetworks_seed input", "1")
    page.get_by_role("tab", name="Gallery").click()
    for button in ("Use prompt", "Use seed"):
        first = page.locator(".studio-images button").first
        expect(first).to_have_attribute("title", re.compile("^a moon, 'Seed: 77'"))
        first.click()
        page.get_by_role("button", name=button).click()
    expect(prompt).to_have_value(written)
    expect(page.locator("#hypernetworks_seed input")).to_have_value("5")
    page.context.close()
    assert [problem for problem in problems if "422" not in problem] == []  # that of wrong.pt


def test_a_reload_keeps_the_job_and_a_restarted_studio_the_fields(
    browser: Any, address: str
) -> None:
    page = open_window(browser, address, [])  # what is cut off by the reload goes to the console
    page.fill(PROMPT, "a cat")
    page.fill("#hypernetworks_steps input[type=number]", "150")
    page.locator("#hypernetworks_steps input[type=number]").blur()
    press_generate(page)
    expect(page.locator(".studio-progress p")).to_contain_text(re.compile(r"Step \d+ of 150"))
    page.click("#hypernetworks_generate")
    expect(page.locator(".studio-pill")).to_contain_text("1 waiting")
    page.locator("#hypernetworks_sampler input").click()
    page.keyboard.press("Escape")  # closes the list, and nothing else
    page.reload()
    expect(page.locator(".studio-progress p")).to_contain_text(re.compile(r"Step \d+ of 150"))
    expect(page.locator(PROMPT)).to_have_value("a cat")
    expect(page.locator("#hypernetworks_steps input[type=number]")).to_have_value("150")
    page.click("#hypernetworks_interrupt")
    expect(page.locator("#hypernetworks_messages")).to_contain_text("Interrupted")
    expect(page.locator(".studio-pill")).to_be_hidden()

    page.wait_for_timeout(1800)
    page.fill(PROMPT, "a dog")
    page.wait_for_timeout(600)
    page.route("**/now?*", lambda route: route.abort())
    expect(page.locator(".studio-lost")).to_be_visible()
    page.unroute("**/now?*")

    lost = "The studio was stopped before a comparison could finish."
    other = {"run": "other", "model": "miniature", "jobs": [], "training": {}, "unfinished": lost}
    page.route("**/now?*", lambda route: route.fulfill(body=json.dumps(other)))
    with page.expect_navigation():
        pass
    page.reload()  # gradio does so, too, when the studio is back
    expect(page.locator(PROMPT)).to_have_value("a dog")
    expect(page.locator(".studio-lost")).to_have_count(0)
    unfinished = page.locator(".studio-unfinished")
    expect(unfinished.locator("p")).to_have_text(lost)
    with page.expect_response("**/seen?window=*") as answered:
        unfinished.get_by_role("button", name="Close the message").click()
    assert answered.value.ok
    other["unfinished"] = ""  # as the studio says from then on
    expect(unfinished).to_be_hidden()
    page.context.close()


def test_compare_makes_one_labelled_sheet(page: Any) -> None:
    page.fill("#hypernetworks_steps input[type=number]", "2")
    page.locator("#hypernetworks_steps input[type=number]").blur()
    page.get_by_role("tab", name="Compare").click()
    fill_multipliers(page, "0, 1")
    page.click("#compare_start")
    expect(page.locator("#compare_progress")).to_contain_text("2 images on one sheet")
    cells = page.locator("#compare_sheet td img")
    expect(cells).to_have_count(2)
    cells.first.click()
    viewer = page.locator("dialog.studio-viewer[open]")
    page.keyboard.press("ArrowRight")
    expect(viewer.locator("p")).to_have_text("ink · 1")
    page.keyboard.press("ArrowLeft")
    viewer.get_by_role("button", name="Use these settings").click()
    expect(page.get_by_role("tab", name="Image")).to_have_attribute("aria-selected", "true")
    expect(page.locator(PROMPT)).to_have_value("a strawberry on blue <hypernet:ink:0>")
    page.get_by_role("tab", name="Compare").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download HTML").click()
    written = Path(download.value.path()).read_text(encoding="utf-8")
    assert written.count("data:image/png;base64,") == 2
    fill_multipliers(page, "0, x")
    page.click("#compare_start")
    expect(page.locator("#compare_messages")).to_contain_text("not a number")
    assert page.get_by_role("tab").all_inner_texts() == [
        "Image",
        "Compare",
        "Inspect",
        "Convert",
        "Train",
        "Model",
        "Gallery",
    ]


def test_the_menu_of_a_card_the_history_and_names_while_typing(page: Any) -> None:
    prompt = page.locator(PROMPT)
    generate(page, steps=1)  # of what a new window begins with: gradio may still fill the fields
    page.fill(PROMPT, "something else")
    page.get_by_label("Earlier prompts").select_option(index=1)
    expect(prompt).to_have_value("a strawberry on blue <hypernet:ink:0.8>")

    more = page.get_by_role("button", name="Menu: pen", exact=True)
    more.click()
    expect(page.get_by_role("menuitem", name="Only this network")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("menu")).to_be_hidden()
    expect(more).to_be_focused()
    more.click()
    page.get_by_role("menuitem", name="Only this network").click()
    expect(prompt).to_have_value("a strawberry on blue <hypernet:pen:1>")
    more.click()
    page.get_by_role("menuitem", name="Inspect").click()
    expect(page.locator("#inspect_report .studio-table")).to_be_visible()
    expect(page.locator("#inspect_name input")).to_have_value("pen")
    more.click()
    page.get_by_role("menuitem", name="Convert …").click()
    expect(page.locator("#convert_networks")).to_contain_text("pen")

    page.fill(PROMPT, "a cat ")
    prompt.press("End")
    page.keyboard.type("<hypernet:nig")
    expect(page.get_by_role("option", name=re.compile("^night"))).to_be_visible()
    page.keyboard.press("Enter")
    expect(prompt).to_have_value("a cat <hypernet:night:1>")


def test_cards_know_a_tag_in_any_spelling(page: Any) -> None:
    prompt = page.locator(PROMPT)
    page.fill(PROMPT, "a cat <hypernet:INK:1> <hypernet:STYLES\\Pen.safetensors:1>")
    for name in ("ink", "pen"):
        expect(card(page, name)).to_have_attribute("aria-pressed", "true")
    expect(card(page, "night")).to_have_attribute("aria-pressed", "false")
    card(page, "ink").click()
    expect(prompt).to_have_value("a cat <hypernet:STYLES\\Pen.safetensors:1>")
    page.fill(PROMPT, "a cat <hypernet:INK:1> <hypernet:night:1> <hypernet:night:0.5>")
    page.get_by_role("button", name="Menu: ink", exact=True).click()
    page.get_by_role("menuitem", name="Only this network").click()
    expect(prompt).to_have_value("a cat <hypernet:INK:1>")
    page.fill(PROMPT, "a cat <hypernet:Sepia:1>")
    page.evaluate(TRY)  # it is in already
    expect(prompt).to_have_value("a cat <hypernet:Sepia:1>")


def test_compare_can_be_interrupted(page: Any) -> None:
    page.get_by_role("tab", name="Compare").click()
    page.click("#compare_start")
    expect(page.locator("#compare_progress p")).to_contain_text("Image 2 of")
    page.click("#compare_interrupt")
    expect(page.locator("#compare_messages")).to_contain_text("Interrupted after")
    expect(page.locator("#compare_sheet img").first).to_be_visible()  # those that are there


def test_interrupt_stops_both_jobs_of_a_window_and_leaves_the_other(
    page: Any, browser: Any, address: str
) -> None:
    problems: list[str] = []
    other = open_window(browser, address, problems)
    page.fill(PROMPT, "a cat")
    page.fill("#hypernetworks_steps input[type=number]", "150")
    page.locator("#hypernetworks_steps input[type=number]").blur()
    press_generate(page)
    expect(page.locator("#hypernetworks_progress")).to_contain_text(re.compile(r"Step \d+ of 150"))
    page.get_by_role("tab", name="Compare").click()
    page.click("#compare_start")
    expect(page.locator("#compare_progress p")).to_contain_text(
        "Waiting for an image of this window"
    )
    other.fill("#hypernetworks_steps input[type=number]", "3")
    other.locator("#hypernetworks_steps input[type=number]").blur()
    press_generate(other)
    expect(other.locator("#hypernetworks_progress")).to_contain_text("Waiting for 2 jobs")
    page.click("#compare_interrupt")
    expect(page.locator("#compare_messages")).to_contain_text("Interrupted before it started")
    picture(other)
    page.get_by_role("tab", name="Image").click()
    expect(page.locator("#hypernetworks_messages")).to_contain_text("Interrupted after")
    other.context.close()
    assert problems == []


def test_inspect_tells_what_is_in_a_file(page: Any) -> None:
    page.get_by_role("tab", name="Inspect").click()
    page.locator("#inspect_name input").click()
    page.get_by_role("option", name="sepia", exact=True).click()
    report = page.locator("#inspect_report")
    expect(report.locator(".studio-table")).to_contain_text("96, 160, 192")
    expect(report.locator("svg")).to_have_count(2)


def test_a_network_becomes_a_lora_and_comes_back(
    page: Any, own_folder: Path, tmp_path: Path
) -> None:
    import torch

    import hypernetworks as hn

    line = hn.Hypernetwork.create("line", hn.Structure(), (96, 160, 192))
    for parameter in line.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    hn.write(line, own_folder / "line.safetensors")
    try:
        page.locator(".studio-tools").get_by_role("button", name="Refresh").click()
        expect(card(page, "line")).to_be_visible()
        page.get_by_role("tab", name="Convert").click()
        page.locator("#convert_networks input").first.click()
        page.get_by_role("option", name="line", exact=True).click()
        page.keyboard.press("Escape")
        page.click("#convert_start")
        expect(page.locator("#convert_progress")).to_contain_text("LoRA written")
        with page.expect_download() as download:
            page.locator("#convert_made a").first.click()
        download.value.save_as(tmp_path / "line.safetensors")

        page.locator("#convert_kind").get_by_text("Network from a LoRA", exact=True).click()
        file = page.locator("#convert_lora input[type=file]")
        file.set_input_files(str(tmp_path / "line.safetensors"))
        # once it is sent; gradio puts the end of the name into an element of its own
        sent = re.compile(r"line\s*\.safetensors\s*[\d.]+\s*MB")
        expect(page.locator("#convert_lora")).to_contain_text(sent)
        page.locator("#convert_name").get_by_role("textbox").fill("again")
        page.click("#convert_start")
        expect(page.locator("#convert_messages")).to_contain_text("has 100.0% of the change")
        assert hn.read(own_folder / "again.safetensors").structure.is_linear
    finally:
        for name in ("line", "again"):
            (own_folder / f"{name}.safetensors").unlink(missing_ok=True)


def test_a_path_that_is_no_checkpoint_is_told_and_the_model_stays(
    page: Any, tmp_path: Path, browser: Any, address: str
) -> None:
    other = open_window(browser, address, [])
    page.get_by_role("tab", name="Model").click()
    page.get_by_label("A checkpoint").click()
    path = page.get_by_label("Path of a checkpoint")
    path.fill(str(tmp_path / "none.safetensors"))
    page.click("#model_load")
    expect(page.locator("#model_messages")).to_contain_text(
        "none.safetensors: there is no such file"
    )
    expect(page.locator("#hypernetworks_status")).to_contain_text("miniature")
    model = shutil.copytree(NETWORKS.parent / "weights", tmp_path / "painted-v1.5")
    path.fill(str(model))
    page.click("#model_load")
    expect(page.locator("#model_messages")).to_contain_text("is loaded", timeout=180_000)
    for each in (page, other):  # the other one without a reload
        expect(each.locator("#hypernetworks_status")).to_contain_text("painted-v1.5")
    other.context.close()
    page.get_by_label("The miniature").click()
    page.click("#model_load")
    expect(page.locator("#hypernetworks_status")).to_contain_text("miniature", timeout=180_000)


def test_with_listen_a_password_is_asked_for_and_the_model_tab_shows_the_checkpoint(
    browser: Any, tmp_path: Path
) -> None:
    options = [
        "--listen",
        "--password",
        "open sesame",
        "--checkpoint",
        str(NETWORKS.parent / "weights"),
    ]
    options += ["--images", str(tmp_path)]
    with studio(*options, "--hypernetworks", str(NETWORKS)) as address:
        for path in (
            "/hypernetworks/v1/list",
            "/hypernetworks/files/studio.js",
            "/gradio_api/info",
            "/config",
        ):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(address + path, timeout=20)
        context = browser.new_context(viewport={"width": 390, "height": 700})
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_label("Password").fill("sesame")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not the password")
        page.get_by_label("Password").fill("open sesame")
        page.get_by_role("button", name="Log in").click()
        page.wait_for_selector(".studio-card")
        generate(page, "a cat <hypernet:ink:1>", steps=2)
        page.get_by_role("tab", name="Model").click()
        expect(page.get_by_role("radio", name="A checkpoint")).to_be_checked()
        expect(page.get_by_label("Path of a checkpoint")).to_have_value(
            "weights"
        )  # others don't see where it is
        context.close()
