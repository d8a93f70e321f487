"""Our routes: what they answer, what they refuse, and who may ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_webui import HOSTS, FakeWebui
from fastapi import FastAPI
from fastapi.testclient import TestClient
from unit.library.test_library import add, network

import hypernetworks as hn
from hypernetworks.hosts.webui import api, card_actions, checks, folders
from hypernetworks.hosts.webui.training.routes import ACTIONS

every_host = pytest.mark.parametrize("fake_webui", HOSTS, indirect=True)
ROUTES = sorted(
    [
        *("/check", "/inspect", "/list", "/preview", "/refresh", *card_actions.ACTIONS),
        *("/training", "/training/preview", *(f"/training/{action}" for action in ACTIONS)),
    ]
)
PATHS = [
    ("GET", "/list"),
    ("POST", "/refresh"),
    ("GET", "/inspect?name=ink"),
    ("GET", "/check?name=ink"),
    ("GET", "/preview?name=ink"),
]


def client(app: Any = None) -> TestClient:
    """Someone who asks a server with our routes."""
    app = FastAPI() if app is None else app
    api.register(app)
    return TestClient(app, base_url="https://testserver")


def get(path: str, **more: Any) -> Any:
    """The answer, which must be good."""
    response = client().get(api.PREFIX + path, **more)
    assert response.status_code == 200, response.text
    return response.json()


def refused(path: str) -> tuple[int, str]:
    """Status and text of an answer that is an error."""
    response = client().get(api.PREFIX + path)
    assert list(response.json()) == ["error"]
    return response.status_code, response.json()["error"]


# Answers


@every_host
def test_the_list(fake_webui: FakeWebui) -> None:
    ink = network(fake_webui.folder / "sub" / "ink.pt", width=768)
    ink.with_suffix(".json").write_text(
        json.dumps({"activation text": "ink, «wash»", "preferred weight": 0.6})
    )
    night = network(fake_webui.folder / "night.safetensors")
    hash_of_ink = folders.short_hash(folders.library().find("ink"))
    known = {
        "favorite": False,
        "tags": [],
        "activation_text": "ink, «wash»",
        "preferred_multiplier": 0.6,
        "family": "SD1",
        "hash": hash_of_ink,
    }
    unknown = {"activation_text": "", "preferred_multiplier": None, "family": None, "hash": None}
    unknown |= {"favorite": False, "tags": []}
    times = {
        path: {"size": path.stat().st_size, "mtime": pytest.approx(path.stat().st_mtime)}
        for path in (ink, night)
    }
    assert get("/list") == [
        {"name": "ink", "folder": "sub", "suffix": ".pt"} | times[ink] | known,
        {"name": "night", "folder": "", "suffix": ".safetensors"} | times[night] | unknown,
    ]


def test_names_are_as_tags_write_them(fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "a/ink.pt", "b/ink.ckpt", "x.pt", "x.safetensors")
    listed = [(item["name"], item["suffix"]) for item in get("/list")]
    assert listed == [("a/ink", ".pt"), ("b/ink", ".ckpt"), ("x", ".safetensors"), ("x.pt", ".pt")]


def test_the_list_takes_no_time_for_families(
    fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = network(fake_webui.folder / "ink.pt", width=768)
    network(fake_webui.folder / "night.pt", width=768)
    path.with_suffix(".json").write_text(json.dumps({"sd version": "SD1"}))
    monkeypatch.setattr(api, "SECONDS", 0)
    monkeypatch.setattr(api, "facts", lambda _: 1 / 0)
    assert [item["family"] for item in get("/list")] == ["SD1", None], (
        "what the side-car says costs nothing"
    )


@every_host
def test_refresh(fake_webui: FakeWebui) -> None:
    asking = client()
    add(fake_webui.folder, "ink.pt")
    assert asking.post(f"{api.PREFIX}/refresh").json() == {"count": 1}
    add(fake_webui.folder, "night.pt")
    assert len(asking.get(f"{api.PREFIX}/list").json()) == 1
    assert asking.post(f"{api.PREFIX}/refresh").json() == {"count": 2}
    assert list(fake_webui.shared.hypernetworks) == ["ink", "night"]
    assert asking.get(f"{api.PREFIX}/refresh").status_code == 405, "a link in a page does nothing"


def test_inspect(fake_webui: FakeWebui) -> None:
    network(fake_webui.folder / "sub" / "ink.pt", width=768)
    found = get("/inspect", params={"name": "sub/ink"})
    assert found["path"] == "sub/ink.pt"
    assert found["widths"] == [768]
    assert found["family"] == "SD1"
    assert found["norms"][0]["side"] == "k"
    assert str(fake_webui.root) not in json.dumps(found)
    assert found == get("/inspect", params={"name": " INK"})


def test_numbers_that_json_does_not_know(fake_webui: FakeWebui) -> None:
    broken = hn.Hypernetwork.create("broken", hn.Structure(), (768,))
    with torch.no_grad():
        next(broken.parameters())[0, 0] = float("nan")
    fake_webui.folder.mkdir(parents=True)
    hn.write(broken, fake_webui.folder / "broken.pt")
    found = get("/inspect", params={"name": "broken"})
    assert None in [number for norm in found["norms"] for number in norm["norms"]]
    assert any("NaN" in warning for warning in found["warnings"])


def test_inspecting_keeps_nothing(fake_webui: FakeWebui) -> None:
    network(fake_webui.folder / "ink.pt")
    get("/inspect", params={"name": "ink"})
    assert not folders.library()._loaded, "the cache is for what makes pictures"


# Errors


def test_what_is_refused(fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.pt", "a/twice.pt", "b/twice.pt", "x.pt", "x.bin")
    (fake_webui.folder / "damaged.pt").write_text("no network")
    assert refused("/inspect?name=imk") == (
        404,
        'there is no hypernetwork "imk", did you mean ink?',
    )
    assert refused("/inspect?name=twice") == (
        409,
        'the name "twice" is ambiguous: write a/twice or b/twice',
    )
    for query in ("", "?name=", "?other=ink"):
        assert refused(f"/inspect{query}")[0] == 422
    status, message = refused("/inspect?name=damaged")
    assert status == 422
    assert message.startswith("damaged.pt: ")


def test_a_file_that_has_gone(fake_webui: FakeWebui) -> None:
    path = network(fake_webui.folder / "sub" / "ink.pt")
    folders.library().scan()
    path.unlink()
    assert refused("/inspect?name=ink") == (422, "sub/ink.pt: there is no such file")


def test_an_empty_library_does_not_say_where_it_is(fake_webui: FakeWebui) -> None:
    status, message = refused("/inspect?name=ink")
    assert status == 404
    assert str(fake_webui.root) not in message


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../secret",
            "..%2Fsecret",
            "sub/../../secret",
            "/etc/passwd",
            "{root}/secret",
            "{root}/secret.pt",
            "secret",
        ),
        *(
            "secret.pt",
            "%00",
            "ink%00",
            "..",
            ".",
            "~",
            "C:\\secret",
            "sub\\..\\..\\secret",
            "\\\\host\\share",
        ),
    ],
)
def test_nothing_outside_the_folders_can_be_read(name: str, fake_webui: FakeWebui) -> None:
    network(fake_webui.folder / "sub" / "ink.pt")
    network(fake_webui.folder.parent / "secret.pt")
    network(fake_webui.root / "secret.pt")
    status, _ = refused(f"/inspect?name={name.format(root=fake_webui.root)}")
    assert status == 404


# What the panel asks before an image is generated


def test_names_are_checked(fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch) -> None:
    network(fake_webui.folder / "sub" / "ink.pt", width=768)
    network(fake_webui.folder / "night.pt", width=2048)
    (fake_webui.folder / "broken.pt").write_bytes(b"no network")
    (fake_webui.folder / "sub" / "ink.preview.png").write_bytes(b"an image")
    add(fake_webui.folder, "a/twice.pt", "b/twice.pt")
    loaded = ["SD1"]
    monkeypatch.setattr(checks, "loaded_family", lambda: loaded[0])

    names = ["ink", "INK", "inc", "night", "broken", "twice", "ink", "a=b"]
    found = get("/check", params={"name": names})
    assert found["loaded"] == "SD1"
    assert list(found["networks"]) == list(dict.fromkeys(names))
    told = {name: about["problem"] for name, about in found["networks"].items()}
    assert told["ink"] is None
    assert told["INK"] is None, "found as a tag finds it"
    assert "did you mean ink" in told["inc"]
    assert told["night"] == "made for SDXL, but the loaded model is SD1"
    assert told["broken"].startswith("it can't be used: ")
    assert "a/twice or b/twice" in told["twice"]
    assert "there is no hypernetwork" in told["a=b"]
    assert str(fake_webui.root) not in json.dumps(found)
    assert found["networks"]["ink"]["preview"] is not None
    assert found["networks"]["night"]["preview"] is None

    loaded[0] = "SDXL"
    networks = get("/check", params={"name": names})["networks"]
    assert networks["night"]["problem"] is None
    assert "SDXL" in networks["ink"]["problem"]
    fake_webui.shared.opts.data["hypernetworks_force_family"] = True
    assert get("/check", params={"name": "ink"})["networks"]["ink"]["problem"] is None


def test_a_check_ends_with_many_names(fake_webui: FakeWebui) -> None:
    names = [f"name {number}" for number in range(100)]
    assert list(get("/check", params={"name": names})["networks"]) == names[: checks.MOST_NAMES]
    assert get("/check")["networks"] == {}


def test_previews(fake_webui: FakeWebui) -> None:
    network(fake_webui.folder / "ink.pt")
    network(fake_webui.folder / "night.pt")
    (fake_webui.folder / "ink.preview.png").write_bytes(b"an image")
    answer = client().get(f"{api.PREFIX}/preview?name=ink")
    assert (answer.content, answer.headers["content-type"]) == (b"an image", "image/png")
    assert client().get(f"{api.PREFIX}/preview?name=night").status_code == 404
    assert refused("/preview?name=x")[0] == 404


# Registering


@every_host
def test_routes_are_added_once(fake_webui: FakeWebui) -> None:
    app = FastAPI()
    fake_webui.module("script_callbacks").on_app_started(lambda _demo, app: api.register(app))
    for _ in range(2):
        fake_webui.module("script_callbacks").app_started_callback(None, app)
    assert fake_webui.module("errors").reported == []
    ours = [route.path for route in app.routes if getattr(route, "path", "").startswith(api.PREFIX)]
    assert sorted(ours) == [api.PREFIX + path for path in ROUTES]


@pytest.mark.parametrize("fake_webui", ["sdnext"], indirect=True)
def test_sdnexts_prefix(fake_webui: FakeWebui) -> None:
    fake_webui.shared.opts.data["subpath"] = "/webui"
    asking = client()
    assert (
        asking.get(f"/webui{api.PREFIX}/list").json()
        == asking.get(f"{api.PREFIX}/list").json()
        == []
    )


def test_the_routes_are_documented(fake_webui: FakeWebui) -> None:
    described = client().get("/openapi.json").json()["paths"]
    assert sorted(p.removeprefix(api.PREFIX) for p in described if api.PREFIX in p) == ROUTES
    (parameter,) = described[f"{api.PREFIX}/inspect"]["get"]["parameters"]
    assert (parameter["name"], parameter["required"]) == ("name", True)


# Who may ask


class PageWithLogin(FastAPI):
    """What the routes see of gradio's application."""

    def __init__(self, cookie: str = "access-token") -> None:
        super().__init__()
        self.auth = {"ada": "secret"}
        self.tokens = {"token-of-ada": "ada"}
        self.cookie = cookie


def network_with_preview(webui: FakeWebui) -> None:
    """The one that all of the paths ask for."""
    network(webui.folder / "ink.pt").with_suffix(".png").write_bytes(b"an image")


def statuses(asking: TestClient, **more: Any) -> set[int]:
    """The answers of all routes."""
    return {asking.request(method, api.PREFIX + path, **more).status_code for method, path in PATHS}


@every_host
def test_an_open_webui(fake_webui: FakeWebui) -> None:
    network_with_preview(fake_webui)
    assert statuses(client()) == {200}


@pytest.mark.parametrize(
    "cookie",
    ["access-token", "access-token-unsecure", "access-token-Xy_1", "access-token-unsecure-Xy"],
)
def test_the_pages_login(cookie: str, fake_webui: FakeWebui) -> None:
    network_with_preview(fake_webui)
    for cookies, status in (
        ({}, 401),
        ({cookie: "token-of-ada"}, 200),
        ({cookie: "token-of-eve"}, 401),
        ({"other": "token-of-ada"}, 401),
        ({cookie: ""}, 401),
    ):
        asking = client(PageWithLogin())
        asking.cookies.update(cookies)
        assert statuses(asking) == {status}, cookies
    assert statuses(client(PageWithLogin()), auth=("ada", "secret")) == {401}, (
        "the API has no such login"
    )


@pytest.mark.parametrize("page", [FastAPI, PageWithLogin])
def test_the_apis_login(page: type[FastAPI], fake_webui: FakeWebui) -> None:
    network_with_preview(fake_webui)
    fake_webui.shared.cmd_opts.api_auth = "ada:secret,bob:pass"
    for auth, status in (
        (None, 401),
        (("ada", "secret"), 200),
        (("bob", "pass"), 200),
        (("ada", "pass"), 401),
        (("ada", ""), 401),
        (("eve", "secret"), 401),
        (("", ""), 401),
    ):
        assert statuses(client(page()), auth=auth) == {status}, auth


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic /w==",
        "Bearer YWRhOnNlY3JldA==",
        "Basic YWRh",
        "x" * 9999,
    ],
)
def test_headers_that_are_no_login(header: str, fake_webui: FakeWebui) -> None:
    fake_webui.shared.cmd_opts.api_auth = "ada:secret"
    assert statuses(client(), headers={"Authorization": header}) == {401}


def test_a_login_that_can_not_be_understood_lets_nobody_in(fake_webui: FakeWebui) -> None:
    fake_webui.shared.cmd_opts.api_auth = "secret"
    assert (
        statuses(client())
        == statuses(client(), auth=("secret", ""))
        == statuses(client(), auth=("", ""))
        == {401}
    )


def test_the_question_for_a_password_is_not_asked_in_a_page(fake_webui: FakeWebui) -> None:
    fake_webui.shared.cmd_opts.api_auth = "ada:secret"
    asking = client()
    assert asking.get(f"{api.PREFIX}/list").headers["WWW-Authenticate"] == "Basic"
    answer = asking.get(f"{api.PREFIX}/list", headers={"Sec-Fetch-Dest": "empty"})
    assert "WWW-Authenticate" not in answer.headers
    assert answer.json() == {"error": "log in first"}


@pytest.mark.parametrize("fake_webui", ["sdnext"], indirect=True)
def test_sdnexts_logins(fake_webui: FakeWebui, tmp_path: Path) -> None:
    network_with_preview(fake_webui)
    (tmp_path / "accounts").write_text('bob:pa:ss\n"eve" : word\n')
    fake_webui.shared.cmd_opts.auth = '"ada:secret"'
    fake_webui.shared.cmd_opts.auth_file = str(tmp_path / "accounts")
    for auth in (("ada", "secret"), ("bob", "pa:ss"), ("eve", "word")):
        assert statuses(client(), auth=auth) == {200}
    assert statuses(client(), auth=("ada", "word")) == {401}


def test_the_login_of_the_gradio_that_is_installed(fake_webui: FakeWebui) -> None:
    gradio = pytest.importorskip("gradio")
    from gradio.routes import App

    network_with_preview(fake_webui)
    with gradio.Blocks() as page:
        gradio.Textbox()
    page.auth, page.auth_message = [("ada", "secret")], None
    asking = client(App.create_app(page))
    assert statuses(asking) == {401}
    assert asking.post("/login", data={"username": "ada", "password": "secret"}).status_code == 200
    assert statuses(asking) == {200}
