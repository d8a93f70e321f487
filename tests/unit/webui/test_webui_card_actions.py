"""What the menu of a card does on the server."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest
from fake_webui import FakeWebui
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from unit.library.test_library import network

import hypernetworks as hn
from hypernetworks.files import images
from hypernetworks.hosts.webui import access, api, card_actions

HEADERS = {api.HEADER: "1"}


def client() -> TestClient:
    app = FastAPI()
    api.register(app)
    return TestClient(app)


def act(what: str, body: bytes | None = None, headers: Any = HEADERS, **more: str) -> Any:
    params = {"name": "ink", **more}
    return client().post(f"{api.PREFIX}/{what}", params=params, content=body, headers=headers)


def png(size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, kind)
    return buffer.getvalue()


def listed() -> dict[str, Any]:
    (first, *_) = client().get(f"{api.PREFIX}/list").json()
    return dict(first)


def test_favourites_and_tags_stand_beside_the_file(fake_webui: FakeWebui) -> None:
    beside = network(fake_webui.folder / "ink.pt").with_suffix(".json")
    beside.write_text(json.dumps({"notes": "mine"}))
    assert act("favorite", on="1").json() == {"favorite": True}
    assert act("tags", tags=" line art, ,big,big ").json() == {"tags": ["line art", "big"]}
    assert json.loads(beside.read_text()) == {
        "notes": "mine",
        "favorite": True,
        "tags": ["line art", "big"],
    }
    assert (listed()["favorite"], listed()["tags"]) == (True, ["line art", "big"])
    act("favorite", on="0")
    act("tags", tags="")
    assert json.loads(beside.read_text()) == {"notes": "mine"}
    beside.write_text(json.dumps({"favorite": "yes", "tags": {"a": 1}}))
    assert (listed()["favorite"], listed()["tags"]) == (False, [])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_becomes_the_preview(kind: str, fake_webui: FakeWebui) -> None:
    network(fake_webui.folder / "ink.pt")
    assert act("set_preview", png((1600, 800), kind)).json() == {"preview": "ink.preview.png"}
    with Image.open(fake_webui.folder / "ink.preview.png") as image:
        assert (image.format, image.size) == ("PNG", (768, 384))


@pytest.mark.parametrize("body", [b"", b"<svg/>", b"GIF89a", png()[:40], png(kind="GIF")])
def test_what_is_no_image_is_refused(body: bytes, fake_webui: FakeWebui) -> None:
    network(fake_webui.folder / "ink.pt")
    answer = act("set_preview", body)
    assert answer.status_code == 422
    assert "image" in answer.json()["error"]
    assert not (fake_webui.folder / "ink.preview.png").exists()


def test_large_images_are_refused(fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch) -> None:
    network(fake_webui.folder / "ink.pt")
    monkeypatch.setattr(images, "MOST_PIXELS", 10)
    assert "too many pixels" in act("set_preview", png()).json()["error"]
    monkeypatch.setattr(access, "LARGEST_BODY", 10)
    assert act("set_preview", png()).status_code == 413


def test_convert(fake_webui: FakeWebui) -> None:
    path = network(fake_webui.folder / "ink.pt")
    assert act("convert").json() == {"written": "ink.safetensors"}
    assert hn.read(path.with_suffix(".safetensors")).widths == hn.read(path).widths
    assert [item["name"] for item in client().get(f"{api.PREFIX}/list").json()][:1] == ["ink"]
    refused = act("convert")
    assert refused.status_code == 422
    assert "exists already" in refused.json()["error"]
    assert str(fake_webui.root) not in refused.text


def test_reveal(fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch) -> None:
    network(fake_webui.folder / "ink.pt")
    opened: list[str] = []
    util = type("util", (), {"open_folder": staticmethod(opened.append)})
    import modules  # type: ignore[import-not-found]

    monkeypatch.setattr(modules, "util", util, raising=False)
    monkeypatch.setitem(sys.modules, "modules.util", util)
    assert act("reveal").json() == {"opened": True}
    assert opened == [str(fake_webui.folder)]
    fake_webui.shared.cmd_opts.listen = True
    assert "other machines" in act("reveal").json()["error"]
    assert len(opened) == 1


@pytest.mark.parametrize("what", [path[1:] for path in card_actions.ACTIONS])
def test_who_may_not(what: str, fake_webui: FakeWebui) -> None:
    path = network(fake_webui.folder / "ink.pt")
    before = sorted(file.name for file in fake_webui.folder.iterdir())
    assert act(what, png(), headers={}, on="1", tags="x").status_code == 403
    assert act(what, png(), name="nobody").status_code == 404
    fake_webui.shared.cmd_opts.api_auth = "ada:secret"
    assert act(what, png(), on="1", tags="x").status_code == 401
    assert sorted(file.name for file in path.parent.iterdir()) == before
