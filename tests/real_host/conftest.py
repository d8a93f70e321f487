"""The opt-in tests on a real webui: ``pytest tests/real_host --webui PATH``; without an option, all
are skipped.

The webui needs an SD1 checkpoint. On a machine without a GPU its flags go into ``--webui-args``,
such as ``"--use-cpu all --no-half --precision full --skip-torch-cuda-test"``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from webui_client import Webui
from webui_networks import write_all, write_lora
from webui_page import Tab, opened
from webui_server import (
    PROBE,
    ROOT,
    command_line,
    free_port,
    installed,
    linked,
    started,
    tail,
    wait_until_up,
)

HERE = Path(__file__).parent
SECONDS = 900
"""For one test, the start of the webui included; ``test_long_run`` has its own."""
OURS = {
    "alone": "hypernetworks-under-test",
    "neighbours last": "!hypernetworks-under-test",
    "neighbours first": "~hypernetworks-under-test",
}
"""The folder of our extension: webuis load extensions in the order of their folders' names."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With ``--neighbours``, run each test in both orders in which the extensions can be loaded."""
    if "webui" in metafunc.fixturenames and metafunc.config.getoption("--neighbours"):
        orders = [order for order in OURS if order != "alone"]
        if metafunc.definition.get_closest_marker("also_alone"):
            orders = list(OURS)
        metafunc.parametrize("webui", orders, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip these tests where no webui was named; give them time where one was."""
    asked = config.getoption("--webui") or config.getoption("--webui-url")
    for item in items:
        if HERE in item.path.parents:
            if not asked:
                item.add_marker(pytest.mark.skip(reason="no --webui PATH and no --webui-url URL"))
            elif item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what the webui printed during a test that failed."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    log = getattr(item.session, "webui_log", None)
    if report.failed and log is not None and HERE in item.path.parents:
        report.sections.append(("the webui's log", tail(log, 80, item.stash.get(LOG_POSITION, 0))))


LOG_POSITION = pytest.StashKey[int]()


@pytest.fixture(autouse=True)
def remember_the_log(request: pytest.FixtureRequest) -> None:
    """Where the webui's log is when a test begins."""
    log = getattr(request.session, "webui_log", None)
    if log is not None:
        request.node.stash[LOG_POSITION] = log.stat().st_size


@pytest.fixture(scope="session")
def webui_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks, LoRA, settings and output of the webui under test."""
    folder = tmp_path_factory.mktemp("webui")
    for name in ("hypernetworks", "Lora", "out"):
        (folder / name).mkdir()
    write_all(folder / "hypernetworks")
    write_lora(folder / "Lora" / "some.safetensors")
    return folder


@pytest.fixture(scope="session")
def webui(request: pytest.FixtureRequest, webui_folder: Path) -> Iterator[Webui]:
    """The webui: started here with the project, the probe and the neighbours, or running
    already.
    """
    option = request.config.getoption
    if option("--webui-url"):
        yield Webui(option("--webui-url"))
        return
    path = Path(option("--webui")).resolve()
    python = Path(option("--webui-python") or path / "venv" / "bin" / "python").absolute()
    log, url = webui_folder / "log.txt", f"http://127.0.0.1:{(port := free_port())}"
    request.session.webui_log = log  # type: ignore[attr-defined]
    checkpoint = next(iter(option("--webui-checkpoints").split(",")), None)
    order = getattr(request, "param", "alone")
    neighbours = Path(option("--neighbours")).resolve() if order != "alone" else None
    command = command_line(path, python, port, webui_folder, option("--webui-args"), checkpoint)
    with (
        linked(ROOT, path / "extensions", OURS[order]),
        linked(PROBE, path / "extensions", "hypernetworks-probe"),
        installed(neighbours, path / "extensions"),
        started(command, path, log) as process,
    ):
        wait_until_up(process, url, log)
        yield Webui(url, webui_folder / "hypernetworks", log)


@pytest.fixture(scope="session")
def probed(webui: Webui) -> Webui:
    """The webui with the probe in it, its checkpoint loaded."""
    if webui.folder is None:
        pytest.skip("needs the probe, and a webui that the tests start themselves (--webui)")
    webui.known("x ")
    return webui


@pytest.fixture(scope="session")
def host(probed: Webui) -> str:
    """``"a1111"``, ``"forge"``, ``"neo"``, ``"reforge"`` or ``"sdnext"``."""
    return str(probed.state()["host"])


@pytest.fixture(scope="session")
def checkpoints(request: pytest.FixtureRequest, probed: Webui) -> tuple[str, str]:
    """The checkpoint in use, and another SD1 checkpoint."""
    names = [name for name in request.config.getoption("--webui-checkpoints").split(",") if name]
    if len(names) < 2:
        pytest.skip("needs --webui-checkpoints with two names of SD1 checkpoints")
    return names[0], names[1]


@pytest.fixture
def a1111(host: str, probed: Webui) -> Webui:
    """The webui, where it is AUTOMATIC1111."""
    if host != "a1111":
        pytest.skip("only AUTOMATIC1111 has built-in hypernetworks that work")
    return probed


@pytest.fixture
def screenshots(request: pytest.FixtureRequest) -> Path | None:
    """Where they go, if anywhere; each order of the extensions has a folder of its own."""
    option = request.config.getoption("--webui-screenshots")
    if option is None:
        return None
    callspec = getattr(request.node, "callspec", None)
    order = callspec.params.get("webui", "") if callspec else ""
    folder = Path(option) / order
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def page(probed: Webui) -> Iterator[Any]:
    """The webui's page in Chromium."""
    with opened(probed.url) as page:
        yield page


@pytest.fixture
def txt2img(page: Any, screenshots: Path | None) -> Tab:
    """The first tab, set to small pictures of two steps."""
    for name, value in (("width", 64), ("height", 64), ("steps", 2)):
        page.fill(f"#txt2img_{name} input[type=number]", str(value))
        page.press(f"#txt2img_{name} input[type=number]", "Tab")
    page.fill("#txt2img_seed input", "1")
    page.press("#txt2img_seed input", "Tab")
    return Tab(page, "txt2img", screenshots)


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: no hook of ours, no attribute, and the probe is off."""
    yield
    if "probed" in request.fixturenames:
        probed: Webui = request.getfixturevalue("probed")
        probed.post("/probe/recorded")
        state = probed.state()
        assert (state["our_hooks"], state["attributes"]) == (0, [])
