"""What the studio's page keeps: while it opens, and over a reload; and how it tells of its jobs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser.studio_page import (
    INFOTEXT,
    NETWORKS,
    PROMPT,
    expect,
    open_window,
    studio,
)
from chromium import CHROMIUM, NO_CHROMIUM, stand_still

STEPS = "#hypernetworks_steps input[type=number]"
SEED = "#hypernetworks_seed input"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options with folders of its own, and a checkpoint that has little but its header."""
    root = tmp_path_factory.mktemp("studio")
    (root / "models").mkdir()
    header = b'{"model.diffusion_model.x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    with (root / "models" / "known.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(301 << 20)  # it takes no room on the disk
    (root / "other.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    return [
        *("--hypernetworks", str(NETWORKS), "--training", str(root / "training")),
        *("--images", str(root / "images"), "--checkpoints", str(root / "models")),
    ]


@pytest.fixture(scope="module")
def address(folders: list[str]) -> Iterator[str]:
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    with studio(*folders) as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    page = open_window(browser, address, [])
    yield page
    page.evaluate("document.getElementById('hypernetworks_interrupt').click()")
    expect(page.locator(".studio-pill")).to_be_hidden()
    page.context.close()


def test_what_is_changed_while_a_page_opens_stays(browser: Any, address: str) -> None:
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    saved = {"model": "miniature", "fields": {"prompt": "earlier", "seed": 77, "steps": 9}}
    page.add_init_script(
        f"sessionStorage.setItem('hypernetworks.studio', {json.dumps(json.dumps(saved))})"
    )
    held: list[Any] = []
    is_held = [True]

    def hold(route: Any) -> None:
        if route.request.method == "POST" and is_held[0]:
            held.append(route)
        else:
            route.continue_()

    page.route("**/gradio_api/**", hold)
    page.goto(address)
    page.wait_for_selector(".hypernetworks-filled")
    for _ in range(200):  # on a busy machine the page is there before it asks for its opening
        if held:
            break
        page.wait_for_timeout(100)
    assert held, "the answer of the opening was not held back"
    page.fill(PROMPT, "typed at once")
    page.fill(STEPS, "33")

    is_held[0] = False
    for route in held:
        route.continue_()
    page.wait_for_selector(".studio-opened")
    expect(page.locator(SEED)).to_have_value("77")
    expect(page.locator(PROMPT)).to_have_value("typed at once")
    expect(page.locator(STEPS)).to_have_value("33")
    page.context.close()


def test_a_comparison_and_its_fields_survive_a_reload(page: Any) -> None:
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator("#compare_progress")).to_contain_text("Generates a sheet")
    values = page.locator("#compare_x_values :is(input, textarea)")
    expect(values).not_to_have_value("")
    values.fill("0.1-0.9 (+0.01)")
    page.get_by_label("Begin with a column").check()
    page.click("#compare_start")
    cells = page.locator("#compare_sheet td img")
    expect(cells.nth(1)).to_be_visible(timeout=90_000)
    page.wait_for_function("sessionStorage['hypernetworks.studio']?.includes('0.1-0.9 (+0.01)')")

    page.reload()
    expect(values).to_have_value("0.1-0.9 (+0.01)")
    expect(page.get_by_label("Begin with a column")).to_be_checked()
    expect(page.locator("#compare_progress p")).to_contain_text(re.compile(r"Image \d+ of"))
    before = cells.count()
    expect(cells.nth(before + 1)).to_be_visible(timeout=90_000)  # it goes on
    page.click("#compare_interrupt")
    expect(page.locator("#compare_messages")).to_contain_text("Interrupted after")


def test_a_reload_shows_the_images_of_all_jobs_that_wait(page: Any) -> None:
    page.fill(STEPS, "150")
    for name in ("first", "second"):
        page.fill(PROMPT, f"a cat, {name}")
        page.click("#hypernetworks_generate")
        page.wait_for_timeout(300)
    expect(page.locator(".studio-pill")).to_contain_text("1 waiting")
    page.reload()
    expect(page.locator(INFOTEXT)).to_have_value(re.compile("^a cat, first"), timeout=90_000)
    expect(page.locator(INFOTEXT)).to_have_value(re.compile("^a cat, second"), timeout=90_000)
    expect(page.locator("#hypernetworks_progress .studio-done")).to_contain_text("1 image in")


PRETENDED = """() => {
    window.notes = [];
    window.Notification = class extends EventTarget {
        constructor(title, options) {
            super();
            window.notes.push(`${title}: ${options.body}`);
        }
        static requestPermission() { return Promise.resolve("granted"); }
    };
    const now = Date.now.bind(Date);
    window.late = 0;
    Date.now = () => now() + window.late;
    Object.defineProperty(document, "hidden", { get: () => Boolean(window.away) });
}"""


RIGHT_ENDS = "(all) => all.map((one) => one.getBoundingClientRect().right)"


def test_the_end_of_a_long_job_is_told_in_title_and_notification(page: Any) -> None:
    jobs: list[dict[str, Any]] = []
    answer = {"run": "", "model": "miniature", "jobs": jobs, "training": {}}
    answer["run"] = page.request.get(f"{page.url}hypernetworks/v1/now").json()["run"]
    page.evaluate(PRETENDED)
    page.get_by_role("button", name="Notify me").click()
    expect(page.get_by_role("button", name="Notify me")).to_have_attribute("aria-pressed", "true")
    page.route("**/now?*", lambda route: route.fulfill(body=json.dumps(answer)))

    job = {"title": "an image", "done": 1, "total": 4, "note": "", "mine": True, "running": True}
    jobs.append(job)
    expect(page).to_have_title(re.compile("^25 % · "))
    job["note"] = "Image 12 of 120: a name of a network that is long · 1 · 1,234 s left"
    expect(page.locator(".studio-pill")).to_contain_text("Image 12 of 120")
    for width in (390, 800, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        stand_still(page)
        ends = page.locator("#studio_columns, .studio-pill").evaluate_all(RIGHT_ENDS)
        assert max(ends) <= width, f"the page is wider than {width} px while a job runs"

    page.evaluate("[window.late, window.away] = [60_000, true]")
    jobs.clear()
    expect(page).to_have_title(re.compile("^✓ Done · "))
    assert page.evaluate("window.notes") == ["Hypernetworks studio: The job is done."]

    page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    expect(page).to_have_title("Hypernetworks studio")
    jobs.append(job)  # a short one, before one's eyes
    expect(page).to_have_title(re.compile("^25 % · "))
    jobs.clear()
    expect(page).to_have_title("Hypernetworks studio")
    assert len(page.evaluate("window.notes")) == 1
    page.unroute("**/now?*")


def test_a_dropped_checkpoint_opens_where_it_is(page: Any, folders: list[str]) -> None:
    models = Path(folders[-1])
    sent: list[str] = []
    page.on("request", lambda r: sent.append(r.url) if "/add?" in r.url else None)
    chooser = page.locator(".studio-tools input[type=file]").first
    chooser.set_input_files(str(models.parent / "other.safetensors"))
    messages = page.locator("#model_messages")
    expect(page.get_by_role("tab", name="Model")).to_have_attribute("aria-selected", "true")
    expect(messages).to_contain_text("other.safetensors is a checkpoint")
    expect(page.get_by_label("Path of a checkpoint")).to_be_focused()

    chooser.set_input_files(str(models / "known.safetensors"))
    # It has no more than one tensor: what was read says so.
    expect(messages).to_contain_text(re.compile("known.safetensors: "), timeout=60_000)
    expect(page.locator("#model_chosen input")).to_have_value("known.safetensors")
    assert sent == []


DROP_ON = """([place, name, size]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(size)], name));
    const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
    const field = document.querySelector(`${place} button`) ?? document.querySelector(place);
    for (const name of ["dragenter", "dragover", "drop"]) field.dispatchEvent(new DragEvent(name, options));
}"""


def test_a_field_that_wants_a_file_gets_what_is_dropped_on_it(page: Any) -> None:
    sent: list[str] = []
    page.on("request", lambda r: sent.append(r.url) if "/add?" in r.url else None)
    page.fill(PROMPT, "mine")
    # Not with the mouse: the panel above loses its row, so that what is below moves meanwhile.
    page.get_by_text("Hires, image to image").dispatch_event("click")
    image = page.locator("#hypernetworks_image")
    expect(image).to_be_visible()
    for name in ("first.png", "second.png"):  # the second one takes the place of the first
        page.evaluate(DROP_ON, ["#hypernetworks_image", name, 100])
        expect(image).to_contain_text(re.compile(rf"{name[:-4]}\s*\.png"))
    expect(image).not_to_contain_text("first")
    expect(page.locator("#hypernetworks_messages")).not_to_contain_text("image")
    expect(page.locator(PROMPT)).to_have_value("mine")

    page.get_by_role("tab", name="Convert").click()
    for kind, name in (("a LoRA", "lora"), ("a fine-tuned checkpoint", "tuned")):
        page.locator("#convert_kind").get_by_text(f"Network from {kind}", exact=True).click()
        expect(page.locator("#convert_lora")).to_be_visible()
        page.evaluate(DROP_ON, ["#convert_lora", f"{name}.safetensors", 100])
        expect(page.locator("#convert_lora")).to_contain_text(
            re.compile(rf"{name}\s*\.safetensors")
        )
    assert sent == []  # nothing was added to the library

    page.evaluate(DROP_ON, ["#convert_lora", "large.safetensors", (64 << 20) + 1])
    messages = page.locator("#convert_messages")
    expect(messages).to_contain_text("large.safetensors is larger than 64 MiB")
    expect(page.get_by_label("Or its path on this machine")).to_be_visible()
    expect(page.locator("#convert_chosen")).to_be_visible()
    page.evaluate(DROP_ON, ["#convert_lora", "known.safetensors", 301 << 20])
    expect(messages).to_contain_text("known.safetensors is chosen", timeout=60_000)
    expect(page.locator("#convert_chosen input")).to_have_value("known.safetensors")
