"""What other extensions ask of webuis that have removed hypernetworks."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from fake_webui import FakeWebui
from fastapi import FastAPI
from fastapi.testclient import TestClient
from unit.library.test_library import add, network

from hypernetworks.hosts.webui import api, folders, registration, shims

removed = pytest.mark.parametrize("fake_webui", ["classic", "sdnext"], indirect=True)


def listed(app: Any) -> Any:
    return TestClient(app).get(shims.ROUTE)


@removed
def test_what_is_missing_is_there(fake_webui: FakeWebui) -> None:
    shared = fake_webui.shared
    ink = network(fake_webui.folder / "sub" / "ink.pt")
    night = network(fake_webui.folder / "night.safetensors")
    registration.register()
    assert Path(shared.cmd_opts.hypernetwork_dir) == fake_webui.folder
    shared.reload_hypernetworks()
    paths = {"ink": str(ink), "night": str(night)}
    assert shared.hypernetworks == paths

    module = importlib.import_module("modules.hypernetworks.hypernetwork")
    assert module.list_hypernetworks(shared.cmd_opts.hypernetwork_dir) == paths
    assert module.list_hypernetworks(str(fake_webui.folder / "sub")) == {"ink": str(ink)}
    assert module.find_closest_hypernetwork_name("INK") == "ink"
    assert module.find_closest_hypernetwork_name("x") is None
    assert module.load_hypernetwork("night").widths
    assert module.load_hypernetwork("x") is None
    assert module.load_hypernetworks(["ink"], [1.0]) is None

    folders.register()  # ours is not taken for the webui's
    app = FastAPI()
    api.register(app)
    api.register(app)
    assert listed(app).json() == [{"name": name, "path": path} for name, path in paths.items()]


@removed
def test_nothing_stays_when_our_script_goes(fake_webui: FakeWebui) -> None:
    shared = fake_webui.shared
    before = dict(vars(shared.cmd_opts)), set(dir(shared))
    for _ in range(2):
        registration.register()
    registration.unloaded()
    assert (dict(vars(shared.cmd_opts)), set(dir(shared))) == before
    with pytest.raises(ImportError):
        importlib.import_module("modules.hypernetworks.hypernetwork")


@pytest.mark.parametrize("fake_webui", ["a1111"], indirect=True)
def test_what_is_there_stays(fake_webui: FakeWebui) -> None:
    shared = fake_webui.shared
    shared.cmd_opts.hypernetwork_dir = "mine"
    reload = shared.reload_hypernetworks = lambda: None
    module = importlib.import_module("modules.hypernetworks.hypernetwork")
    registration.register()
    assert shared.cmd_opts.hypernetwork_dir == "mine"
    assert shared.reload_hypernetworks is reload
    assert importlib.import_module("modules.hypernetworks.hypernetwork") is module
    app = FastAPI()
    app.get(shims.ROUTE)(lambda: "the webui's")
    api.register(app)
    assert listed(app).json() == "the webui's"


@pytest.mark.parametrize("fake_webui", ["classic"], indirect=True)
def test_paths_are_for_those_who_may_use_the_api(fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.pt")
    fake_webui.shared.cmd_opts.api_auth = "ada:secret"
    app = FastAPI()
    api.register(app)
    assert listed(app).status_code == 401
    fake_webui.shared.cmd_opts.api = False
    app = FastAPI()
    api.register(app)
    assert listed(app).status_code == 404, "without --api, the webui has none either"
