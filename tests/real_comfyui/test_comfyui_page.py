"""ComfyUI's page in a real browser: add nodes, draw the curve, queue, see the image; and every
example workflow.

``--comfyui-pictures FOLDER`` keeps a picture of each.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest
from comfyui_server import ComfyUI
from PIL import Image
from test_comfyui_workflows import write_networks
from workflows import WORKFLOWS, made_small

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(chromium.CHROMIUM is None, reason=chromium.NO_CHROMIUM)

SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasMenu": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
}
READY = "window.app?.graph?._nodes && document.querySelector('#graph-canvas')"
FIT = """([left, top, wide, high]) => {
    const [canvas, nodes] = [window.app.canvas, window.app.graph._nodes];
    if (!nodes.length) {
        canvas.ds.scale = 1;
        canvas.ds.offset = [0, 0];
        return;
    }
    const all = nodes.flatMap((n) => [[n.pos[0], n.pos[1] - 30], [n.pos[0] + n.size[0], n.pos[1] + n.size[1]]]);
    const [xs, ys] = [0, 1].map((axis) => all.map((corner) => corner[axis]));
    const [x, y] = [Math.min(...xs), Math.min(...ys)];
    const scale = Math.min(1, wide / (Math.max(...xs) - x), high / (Math.max(...ys) - y));
    canvas.ds.scale = scale;
    canvas.ds.offset = [left / scale - x, top / scale - y];
    canvas.setDirty(true, true);
}"""
EMPTY = {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "version": 0.4}
PAPER = (90, 110, 1480, 760)
"""Where the graph is put in the window: left, top, width, height."""


class Page:
    """ComfyUI's page.

    Args:
        page: playwright's.
        comfyui: the server.
        pictures: where pictures go; ``None`` for nowhere.
    """

    def __init__(self, page: Any, comfyui: ComfyUI, pictures: Path | None) -> None:
        self.page, self.comfyui, self.pictures = page, comfyui, pictures
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error.stack)))
        page.on("console", lambda m: m.type in ("error", "warning") and self.errors.append(m.text))

    def load(self, workflow: dict[str, Any]) -> None:
        """Show a workflow."""
        self.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        self.page.evaluate(FIT, PAPER)
        self.page.wait_for_timeout(500)

    def picture(self, name: str) -> None:
        """Keep what the graph looks like."""
        if self.pictures is None:
            return
        self.page.wait_for_timeout(1500)
        left, top, wide, high = PAPER
        clip = {"x": left - 20, "y": top - 25, "width": wide + 40, "height": high + 40}
        self.page.screenshot(path=self.pictures / f"{name}.png", clip=clip)

    def values(self, kind: str) -> dict[str, Any]:
        """The widgets of the first node of a kind."""
        return dict(
            self.page.evaluate(
                """kind => Object.fromEntries(window.app.graph._nodes.find((n) => n.comfyClass === kind)
                    .widgets.map((w) => [w.name, w.value ?? null]))""",
                kind,
            )
        )

    def run(self) -> dict[str, Any]:
        """Press Run; the history of the job, once it is done."""
        before = set(self.comfyui.get("/history"))
        self.page.get_by_test_id("queue-button").locator("button").first.click()
        end = time.monotonic() + 300
        while time.monotonic() < end:
            done = {k: v for k, v in self.comfyui.get("/history").items() if k not in before}
            if done:
                return dict(next(iter(done.values())))
            self.page.wait_for_timeout(300)
        raise TimeoutError("\n".join(self.errors))

    def ours(self) -> list[str]:
        """Errors and warnings that name us."""
        return [text for text in self.errors if "hypernetwork" in text.lower()]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium.CHROMIUM, args=chromium.FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page(browser: Any, comfyui: ComfyUI, request: pytest.FixtureRequest) -> Page:
    write_networks(comfyui)
    for name, value in SETTINGS.items():
        comfyui.post(f"/settings/{name}", value)
    given = request.config.getoption("--comfyui-pictures")
    if given:
        Path(given).mkdir(parents=True, exist_ok=True)
    opened = browser.new_page(viewport={"width": 1600, "height": 900})
    opened.set_default_timeout(60_000)
    shown = Page(opened, comfyui, Path(given) if given else None)
    opened.goto(comfyui.url, timeout=180_000)
    opened.wait_for_function(READY, timeout=180_000)
    opened.wait_for_timeout(3000)
    return shown


def small(comfyui: ComfyUI, path: Path) -> dict[str, Any]:
    """An example workflow at one step and 64 pixels, as the page loads it."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    return made_small(workflow, comfyui.get("/object_info"), comfyui.checkpoints)


def add(page: Page, words: str, at: tuple[int, int]) -> None:
    """A node by the search box."""
    page.page.mouse.dblclick(*at)
    box = page.page.locator(".comfy-vue-node-search-container input, .node-search-box input").first
    box.fill(words)
    page.page.wait_for_timeout(1500)
    page.page.keyboard.press("Enter")
    page.page.wait_for_timeout(1000)


def test_a_schedule_is_added_by_search_and_drawn(page: Page) -> None:
    page.load(EMPTY)
    add(page, "hypernetwork sched", (700, 400))
    curve = page.page.locator(".hypernetworks-curve svg[role=group]")
    curve.wait_for(state="visible")
    assert page.values("HypernetworkSchedule")["points"] == "0@0,1@1"

    box = curve.bounding_box()
    x, y = (
        (lambda share: box["x"] + share * box["width"]),
        (lambda share: box["y"] + share * box["height"]),
    )
    mouse = page.page.mouse
    mouse.click(x(0.5), y(0.15))
    points = page.values("HypernetworkSchedule")["points"].split(",")
    assert len(points) == 3
    mouse.move(x(0.5), y(0.15))
    mouse.down()
    mouse.move(x(0.62), y(0.45), steps=5)
    mouse.up()
    moved = page.values("HypernetworkSchedule")["points"].split(",")
    assert len(moved) == 3
    assert moved[1] != points[1]
    page.page.keyboard.press("ArrowUp")
    assert page.values("HypernetworkSchedule")["points"].split(",")[1] != moved[1]
    page.picture("curve")
    page.page.keyboard.press("Delete")
    assert page.values("HypernetworkSchedule")["points"] == "0@0,1@1"
    assert len(page.page.evaluate("window.app.graph._nodes")) == 1  # and not the node
    assert page.ours() == []


def test_points_that_cannot_be_read_say_so(page: Page) -> None:
    page.load(EMPTY)
    add(page, "hypernetwork sched", (700, 400))
    set_value(page, "HypernetworkSchedule", "points", "0@0,1")
    assert "no position" in page.page.locator(".hypernetworks-note").inner_text()
    set_value(page, "HypernetworkSchedule", "points", "0.5")
    page.page.locator(".hypernetworks-draw").click()
    assert page.values("HypernetworkSchedule")["points"] == "0.5@0,0.5@1"


def set_value(page: Page, kind: str, name: str, value: Any) -> None:
    """As if it had been typed."""
    page.page.evaluate(
        """([kind, name, value]) => {
            const node = window.app.graph._nodes.find((n) => n.comfyClass === kind);
            const widget = node.widgets.find((w) => w.name === name);
            widget.value = value;
            widget.callback?.(value, window.app.canvas, node);
        }""",
        [kind, name, value],
    )


def test_a_stack_grows(page: Page) -> None:
    page.load(EMPTY)
    add(page, "hypernetwork stack", (700, 300))
    if "HypernetworkStack" not in page.page.evaluate(
        "window.app.graph._nodes.map(n => n.comfyClass)"
    ):
        pytest.fail("the search found another node first")

    def shown() -> int:
        return int(
            page.page.evaluate(
                "window.app.graph._nodes[0].widgets.filter((w) => w.name.startsWith('name') && !w.hidden).length"
            )
        )

    assert shown() == 1
    for number in (1, 2):
        set_value(page, "HypernetworkStack", f"name_{number}", "ink.safetensors")
        assert shown() == number + 1
    page.picture("stack")
    saved = json.loads(page.page.evaluate("JSON.stringify(window.app.graph.serialize())"))
    page.load(saved)
    assert shown() == 3
    set_value(page, "HypernetworkStack", "name_2", "None")
    assert shown() == 2


def test_the_image_beside_a_network_is_shown_on_hover(page: Page) -> None:
    folder = page.comfyui.folder / "models" / "hypernetworks"
    with Image.new("RGB", (64, 48), "purple") as drawn:
        drawn.save(folder / "ink.preview.png")
    page.load(EMPTY)
    add(page, "apply hypernetwork", (700, 300))
    # Where the widget is drawn, in pixels of the window.
    x, y = page.page.evaluate(
        """() => {
            const node = window.app.graph._nodes.find((n) => n.comfyClass === "HypernetworkApply");
            const y = node.pos[1] + node.widgets.find((w) => w.name === "name").last_y + 10;
            const [left, top] = window.app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2, y]);
            const box = window.app.canvas.canvas.getBoundingClientRect();
            return [left + box.left, top + box.top];
        }"""
    )
    page.page.mouse.move(x, y)
    page.page.mouse.move(x + 1, y)
    page.page.mouse.click(x + 1, y)
    entries = page.page.locator(".litecontextmenu .litemenu-entry")
    image = page.page.locator(".hypernetworks-preview")
    entries.filter(has_text="ink.safetensors").first.hover()
    image.wait_for(state="visible")
    assert image.evaluate("image => image.naturalWidth") == 64
    page.picture("preview")
    entries.filter(has_text="night.safetensors").first.hover()
    image.wait_for(state="hidden")  # it has none
    page.page.keyboard.press("Escape")
    assert page.ours() == []


def test_a_drawn_curve_is_queued_and_its_image_is_seen(page: Page) -> None:
    path = next(p for p in WORKFLOWS if "Schedule" in p.stem)
    page.load(small(page.comfyui, path))
    curve = page.page.locator(".hypernetworks-curve svg[role=group]")
    box = curve.bounding_box()
    page.page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 0.6 * box["height"])
    points = page.values("HypernetworkSchedule")["points"]
    history = page.run()
    assert history["status"]["status_str"] == "success", history["status"]
    sent = [n for n in history["prompt"][2].values() if n["class_type"] == "HypernetworkSchedule"]
    assert [n["inputs"] for n in sent] == [{"points": points, "start": 0, "stop": 1}]
    page.page.wait_for_function(IMAGE_IS_SEEN)
    page.picture("image")
    assert page.ours() == []


IMAGE_IS_SEEN = """() => window.app.graph._nodes.some((n) => n.comfyClass === "SaveImage"
    && n.imgs?.length && n.imgs[0].naturalWidth > 0)"""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow(page: Page, path: Path) -> None:
    """As ComfyUI's list of templates has it; queued in the page, and its image seen there."""
    templates = page.comfyui.get("/workflow_templates")["hypernetworks"]
    assert path.stem in templates
    page.load(json.loads(path.read_text(encoding="utf-8")))
    page.picture(path.stem)
    page.load(small(page.comfyui, path))
    history = page.run()
    assert history["status"]["status_str"] == "success", history["status"]
    assert all("text" not in output for output in history["outputs"].values())
    page.page.wait_for_function(IMAGE_IS_SEEN)
    assert page.ours() == []


def test_help_and_templates_are_served(page: Page) -> None:
    for name in page.comfyui.get("/object_info"):
        if name.startswith("Hypernetwork") and name != "HypernetworkLoader":
            status = page.page.request.get(
                f"{page.comfyui.url}/extensions/hypernetworks/docs/{name}.md"
            )
            assert status.ok
    for path in WORKFLOWS:
        address = f"{page.comfyui.url}/api/workflow_templates/hypernetworks/{path.stem}.jpg"
        assert page.page.request.get(address).ok
    spoken = page.comfyui.get("/i18n")
    assert spoken["ja"]["nodeDefs"]["HypernetworkApply"]["display_name"] != "Apply Hypernetwork"
