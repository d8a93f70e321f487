"""A page without gradio or a server: a prompt, the panel and the cards, with our scripts as a webui
loads them.

For what does not depend on gradio; each page takes a fraction of a second. What the server would
answer stands in :class:`Server`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from chromium import FLAGS, note_errors

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "http://webui.test/"
PANEL = "#txt2img_hypernetworks_panel"
PROMPT = "#txt2img_prompt textarea"
SCRIPTS = [path.name for path in sorted((ROOT / "javascript").glob("*.js"))]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TAB = """
<div id="tab_{tab}"><div id="{tab}_prompt"><textarea rows="3" cols="80"></textarea></div>
<div id="{tab}_steps"><input type="number" value="20"></div>
<div id="{tab}_gallery"></div>
<div id="{tab}_hypernetworks_accordion">
  <button class="label-wrap"
    onclick="this.nextElementSibling.hidden = !this.nextElementSibling.hidden">Hypernetworks</button>
  <div {hidden}><div id="{tab}_hypernetworks_panel" class="prose">
    <div class="hypernetworks-panel" data-tab="{tab}" data-check="./hypernetworks/v1/check"></div>
  </div></div>
</div>
<div id="{tab}_hypernetworks_controls">
  <div class="extra-network-control--sort extra-network-control--enabled" data-sortkey="default">path</div>
  <div class="extra-network-control--sort" data-sortkey="name">name</div>
  <div class="extra-network-control--sort-dir" data-sortdir="Ascending">direction</div>
</div>
<div id="{tab}_hypernetworks_cards_html" class="extra-network-pane">
  <div id="{tab}_hypernetworks_cards" class="extra-network-cards">{cards}</div>
</div></div>"""
SORTING = """<script>
document.querySelectorAll(".extra-network-control--sort").forEach((one) => one.addEventListener("click", () => {
  const all = one.parentElement.querySelectorAll(".extra-network-control--sort");
  all.forEach((other) => other.classList.toggle("extra-network-control--enabled", other === one));
}));
document.querySelectorAll(".extra-network-control--sort-dir").forEach((one) => one.addEventListener("click", () => {
  one.dataset.sortdir = one.dataset.sortdir === "Ascending" ? "Descending" : "Ascending";
}));
</script>"""
"""As AUTOMATIC1111's buttons over the cards do."""
CARD = """<div class="card" style="position: relative; padding: 2em" data-name="{name}"
  onclick="window.clicked = '{name}'">
  <div class="actions"><span class="name">{name}</span></div></div>"""


@dataclass
class Server:
    """What the webui's server knows, and what it was asked.

    Attributes:
        networks: the answer of ``/list``.
        faults: the sentence of ``/check`` by name.
        previews: names with a preview.
        asked: address and body of each request to our routes.
        opened: whether the panel starts unfolded.
        before: runs in the page before its scripts.
        loaded: family of the loaded model.
        answers: of further routes, by the last part of their address.
    """

    networks: list[dict[str, Any]] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    previews: set[str] = field(default_factory=set)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    opened: bool = True
    before: str = ""
    loaded: str | None = "SD1"
    answers: dict[str, Any] = field(default_factory=dict)

    def html(self) -> str:
        """The page."""
        cards = "".join(CARD.format(name=network["name"]) for network in self.networks)
        hidden = "" if self.opened else "hidden"
        tabs = "".join(
            TAB.format(tab=tab, hidden=hidden, cards=cards) for tab in ("txt2img", "img2img")
        )
        scripts = "".join(f'<script src="/javascript/{name}"></script>' for name in SCRIPTS)
        style = '<link rel="stylesheet" href="/style.css">'
        return f"<!doctype html><meta charset=utf-8>{style}<body>{tabs}{SORTING}{scripts}"

    def answer(self, route: Any) -> None:
        """Answer one request of the page."""
        address = urlsplit(route.request.url)
        if address.path == "/":
            route.fulfill(body=self.html(), content_type="text/html")
        elif (ROOT / address.path[1:]).is_file():
            route.fulfill(path=ROOT / address.path[1:])
        elif address.path.startswith("/hypernetworks/v1/"):
            self._answer_of_ours(route, address.path.rpartition("/")[2], parse_qs(address.query))
        else:
            route.fulfill(status=200, body="")

    def _answer_of_ours(self, route: Any, what: str, query: dict[str, list[str]]) -> None:
        self.asked.append((unquote(route.request.url), route.request.post_data))
        if what == "preview":
            route.fulfill(body=PIXEL, content_type="image/png")
            return
        networks = {
            name: {
                "problem": self.faults.get(name),
                "family": "SD1",
                "preview": 7 if name in self.previews else None,
            }
            for name in query.get("name", ())
        }
        if route.request.method == "POST":
            assert route.request.headers.get("x-hypernetworks") == "1" or what == "refresh"
        answers: dict[str, Any] = {
            **self.answers,
            "list": self.networks,
            "check": {"loaded": self.loaded, "networks": networks},
        }
        route.fulfill(
            body=json.dumps(answers.get(what, {"done": True})), content_type="application/json"
        )


@contextmanager
def plain_browser() -> Iterator[Any]:
    """A browser for all of a module's pages."""
    import pytest

    sync_api = pytest.importorskip("playwright.sync_api")
    from chromium import CHROMIUM, NO_CHROMIUM

    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def plain_page(browser: Any, server: Server) -> Iterator[Any]:
    """One page of that server.

    Raises:
        AssertionError: at the end, for any error on the page.
    """
    problems: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    if server.before:
        context.add_init_script(server.before)
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.route("**/*", server.answer)
    note_errors(page, problems)
    page.goto(ADDRESS)
    yield page
    context.close()
    assert problems == []
