"""Everything that can be asked of the studio's and of the extension's routes by who is not meant
to."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fake_webui import FakeWebui
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.websockets import WebSocketDisconnect

import hypernetworks as hn
from hypernetworks.hosts.diffusers import MINIATURE_NETWORKS, Painter
from hypernetworks.hosts.webui import api
from hypernetworks.studio import cards
from hypernetworks.studio.job_queue import JobQueue
from hypernetworks.studio.train.trainer import Trainer
from hypernetworks.studio.web import limits, safety, server
from hypernetworks.training.folders import TrainingFolders

pytest.importorskip("gradio")

SECRET = "the content of a file that is nobody's business"
OWN = "http://127.0.0.1:7870"
ROUTES = (
    ("GET", "/list"),
    ("POST", "/refresh"),
    ("GET", "/preview"),
    ("POST", "/add"),
    ("GET", "/inspect"),
)
OURS = "/hypernetworks/v1"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with networks, and secrets around it."""
    home = tmp_path_factory.mktemp("home")
    (home / "networks" / "sub").mkdir(parents=True)
    shutil.copy(MINIATURE_NETWORKS / "ink.safetensors", home / "networks" / "mine.safetensors")
    shutil.copy(MINIATURE_NETWORKS / "ink.safetensors", home / "secret.safetensors")
    (home / "networks" / "mine.png").write_bytes(b"a preview")
    for name in ("secret", "secret.txt", "secret.png", "secret.json"):
        (home / name).write_text(SECRET, encoding="utf8")
    return home


@pytest.fixture(scope="module")
def served(home: Path) -> Any:
    """The whole studio, gradio's own routes with it."""
    import os

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    painter = Painter(None, hn.Library([home / "networks", MINIATURE_NETWORKS]))
    trainer = Trainer(JobQueue(painter), TrainingFolders(home / "training"), home / "networks")
    return server.build_app(trainer, home / "pictures")


@pytest.fixture(scope="module")
def studio(served: Any) -> Iterator[TestClient]:
    """Its own page."""
    with TestClient(
        served, base_url=OWN, follow_redirects=False, raise_server_exceptions=False
    ) as client:
        yield client


def outside(home: Path) -> list[str]:
    """Names of files that are none of ours, as a stranger would write them."""
    up, secret = "../" * 12, str(home / "secret.txt")
    plain = [
        *(
            "../secret.txt",
            "../secret",
            "sub/../../secret",
            "../secret.safetensors",
            "....//secret",
            "./../secret.txt",
        ),
        *(
            secret,
            f"/{secret}",
            f"//{secret}",
            f"file://{secret}",
            f"{up}etc/passwd",
            "/etc/passwd",
            f"{up}{secret}",
        ),
        *(
            "C:\\secret.txt",
            "C:secret.txt",
            "C:/Windows/win.ini",
            "\\\\host\\share\\secret",
            "//host/share/secret",
        ),
        *(
            "\\\\?\\C:\\secret.txt",
            "..\\secret.txt",
            "sub\\..\\..\\secret",
            "ink\0/../../secret",
            "secret.txt\0.png",
        ),
        *(
            "~/secret.txt",
            "$HOME/secret",
            "CON",
            "NUL.pt",
            "ink.safetensors::$DATA",
            "\uff0e\uff0e/secret.txt",
            "a" * 9000,
        ),
        *(
            "http://evil.example/x",
            "//evil.example/x",
            "\r\nSet-Cookie: a=b",
            "",
            ".",
            "..",
            "/",
            "%",
            "%zz",
            "\ud7ff",
        ),
    ]
    return [*plain, *map(quote, plain), *(quote(quote(name, safe=""), safe="") for name in plain)]


def innocent(answer: Any) -> None:
    """No secret, no way to another machine, no header of the stranger's."""
    assert SECRET not in answer.text
    assert "root:" not in answer.text
    assert "evil.example" not in answer.headers.get("location", "")
    assert "set-cookie" not in answer.headers or "a=b" not in answer.headers["set-cookie"]


def test_paths_in_every_parameter_of_the_studio(studio: TestClient, home: Path) -> None:
    assert studio.get(f"{OURS}/preview", params={"name": "mine"}).content == b"a preview"
    before = sorted(map(str, home.rglob("*")))
    content = (home / "networks" / "mine.safetensors").read_bytes()
    for name in outside(home):
        for answer in (
            studio.get(f"{OURS}/preview", params={"name": name}),
            studio.get(f"{OURS}/preview?name={quote(name, safe='%')}"),
            studio.get(f"/hypernetworks/files/{quote(name)}"),
            studio.post(f"{OURS}/add", params={"name": name}, content=content),
            studio.post(f"{OURS}/add", params={"name": f"{name}.pt"}, content=b"no network"),
        ):
            innocent(answer)
            assert answer.status_code < 500
            assert str(home) not in answer.text.replace(name, "")
            assert answer.status_code in (404, 405, 422, 307, 200), (
                name,
                answer.status_code,
                answer.text[:100],
            )
            assert answer.status_code != 200 or "text/html" in answer.headers["content-type"], name
    assert sorted(map(str, home.rglob("*"))) == before


@pytest.mark.parametrize(
    "route",
    [
        "gradio_api/file=",
        "file=",
        "gradio_api/file/",
        "static/",
        "assets/",
        "svelte/",
        "gradio_api/proxy=",
        "pwa_icon/",
    ],
)
def test_paths_in_gradios_routes(studio: TestClient, home: Path, route: str) -> None:
    for name in outside(
        home
    ):  # of gradio's own, some end in a 500 over a null byte or a long name: no harm in it
        innocent(studio.get(f"/{route}{quote(name, safe='/%:')}"))
    for name in (
        "pyproject.toml",
        "README.md",
        str(home / "networks" / "mine.safetensors"),
        str(home / "secret.png"),
    ):
        assert studio.get(f"/{route}{name}").status_code in (400, 403, 404, 405, 422)


@pytest.mark.skipif(not hasattr(Path, "symlink_to"), reason="needs links")
def test_nothing_that_is_sent_becomes_or_follows_a_link(studio: TestClient, home: Path) -> None:
    link = home / "networks" / "linked.safetensors"
    try:
        link.symlink_to(home / "not there yet")
    except OSError:
        pytest.skip("no links here")
    content = (home / "networks" / "mine.safetensors").read_bytes()
    answer = studio.post(f"{OURS}/add", params={"name": link.name}, content=content)
    link.unlink()
    assert answer.status_code == 422
    assert not (home / "not there yet").exists()


# ------------------------------------------------------------------ other origins


def everything(served: Any) -> list[tuple[str, str]]:
    """Method and path of all routes, gradio's with them."""
    found = {
        ("POST", path)
        for path in ("/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/run/predict")
    }
    app = served
    while not hasattr(app, "routes"):
        app = app.app
    waiting = [*app.routes]
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        waiting += getattr(inner, "routes", [])
        path = re.sub(r"{[^}]*}", "x", getattr(route, "path", "") or "")
        if path.startswith("/") and path != "x":
            found |= {(method, path) for method in getattr(route, "methods", None) or ()}
            found |= {
                (method, f"/gradio_api{path}") for method in getattr(route, "methods", None) or ()
            }
    return sorted(found)


STRANGERS = (
    {"host": "evil.example"},
    {"host": "evil.example:7870", "origin": "http://evil.example:7870"},
    {"host": "127.0.0.1.evil.example"},
    {"host": "127.0.0.1:7870", "origin": "http://evil.example"},
    {"host": "127.0.0.1:7870", "origin": "null"},
    {"host": "127.0.0.1:7870", "origin": "http://127.0.0.1:8000"},
    {"host": "127.0.0.1:7870", "origin": "https://127.0.0.1:7870.evil.example"},
    {"host": "127.0.0.1:7870", "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
    {"host": "127.0.0.1:7870", "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    {"host": "127.0.0.1:7870", "origin": "http://evil.example", "sec-fetch-mode": "navigate"},
)  # fmt: skip


def test_no_route_answers_a_page_of_another_site(served: Any, studio: TestClient) -> None:
    routes = everything(served)
    assert len(routes) > 40
    assert {path for _, path in routes} >= {
        f"{OURS}/add",
        "/gradio_api/queue/join",
        "/config",
        "/gradio_api/upload",
    }
    for headers in STRANGERS:
        for method, path in routes:
            answer = studio.request(method, path, headers=headers)
            assert answer.status_code == 403, (method, path, headers)
            assert "access-control-allow-origin" not in answer.headers
    assert studio.get("/config").status_code == 200


def test_sockets_of_another_site_are_closed(studio: TestClient) -> None:
    for headers in STRANGERS:
        with pytest.raises(WebSocketDisconnect), studio.websocket_connect("/x", headers=headers):
            pass


# ------------------------------------------------------------------ too much


def test_requests_that_are_too_large(
    studio: TestClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safety, "LARGEST_BODY", 1 << 20)
    monkeypatch.setattr(cards, "LARGEST", 1 << 20)
    before = sorted(home.rglob("*"))
    large = b'{"data": ["' + b"a" * (2 << 20) + b'"]}'
    for path in ("/gradio_api/queue/join", "/gradio_api/run/generate", "/gradio_api/call/generate"):
        kind = {"content-type": "application/json"}
        assert studio.post(path, content=large, headers=kind).status_code in (400, 413), path
        assert studio.post(path, content=iter([large]), headers=kind).status_code in (400, 413), (
            path
        )
    assert (
        studio.post(f"{OURS}/add", params={"name": "a.pt"}, content=iter([large])).status_code
        == 422
    )
    sent = studio.post(
        "/gradio_api/upload", files={"files": ("a.png", b"a" * (limits.LARGEST_FILE + 1))}
    )
    assert sent.status_code == 413
    assert sorted(home.rglob("*")) == before
    assert studio.get(f"{OURS}/list", headers={"x-long": "a" * 60_000}).status_code == 200


# ------------------------------------------------------------------ anything at all

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
QUERIES = st.dictionaries(st.sampled_from(["name", "Name", "name[]", "q", ""]), TEXTS, max_size=2)
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])


@settings(max_examples=60)
@given(
    method=METHODS,
    route=st.sampled_from([path for _, path in ROUTES]),
    query=QUERIES,
    body=st.binary(max_size=200),
)
def test_our_routes_of_the_studio_never_fail(
    studio: TestClient, home: Path, method: str, route: str, query: dict[str, str], body: bytes
) -> None:
    answer = studio.request(method, OURS + route, params=query, content=body)
    innocent(answer)
    assert answer.status_code < 500, answer.text


@settings(max_examples=60)
@given(
    method=METHODS, route=st.sampled_from([path for _, path in ROUTES]), query=QUERIES, header=TEXTS
)
def test_our_routes_of_the_webui_never_fail(
    fake_webui: FakeWebui, method: str, route: str, query: dict[str, str], header: str
) -> None:
    fake_webui.folder.mkdir(parents=True, exist_ok=True)
    app = FastAPI()
    api.register(app)
    asking = TestClient(app, base_url="https://testserver", raise_server_exceptions=False)
    answer = asking.request(
        method, api.PREFIX + route, params=query, headers={"authorization": quote(header)}
    )
    assert answer.status_code in (200, 404, 405, 422), answer.text
    assert str(fake_webui.root) not in answer.text


def test_paths_in_every_parameter_of_the_webuis_routes(fake_webui: FakeWebui, home: Path) -> None:
    shutil.copytree(home / "networks", fake_webui.folder)
    shutil.copy(home / "secret.safetensors", fake_webui.folder.parent / "secret.safetensors")
    app = FastAPI()
    api.register(app)
    asking = TestClient(app, base_url="https://testserver", raise_server_exceptions=False)
    assert asking.get(f"{api.PREFIX}/inspect", params={"name": "mine"}).status_code == 200
    for name in outside(home):
        for answer in (
            asking.get(f"{api.PREFIX}/inspect", params={"name": name}),
            asking.get(f"{api.PREFIX}/inspect?name={quote(name, safe='%')}"),
            asking.get(f"{api.PREFIX}/list", params={"name": name}),
            asking.post(f"{api.PREFIX}/refresh", params={"name": name}),
        ):
            innocent(answer)
            assert answer.status_code < 500
            assert str(fake_webui.root) not in answer.text
            assert answer.status_code in (200, 404, 422)
            assert answer.status_code != 200 or "widths" not in answer.text
