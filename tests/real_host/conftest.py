"""The opt-in tests on a real webui: ``pytest tests/real_host --webui PATH``; without an option, all
are skipped.

The webui needs an SD1 checkpoint. On a machine without a GPU its flags go into ``--webui-args``,
such as ``"--use-cpu all --no-half --precision full --skip-torch-cuda-test"``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from webui_client import Webui
from webui_networks import write_all, write_lora
from webui_server import PROBE, ROOT, command_line, free_port, linked, started, tail, wait_until_up

HERE = Path(__file__).parent
SECONDS = 900
"""For one test, the start of the webui included; ``test_long_run`` has its own."""


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
    """The webui: started here with the project and the probe as extensions, or running already."""
    option = request.config.getoption
    if option("--webui-url"):
        yield Webui(option("--webui-url"))
        return
    path = Path(option("--webui")).resolve()
    python = Path(option("--webui-python") or path / "venv" / "bin" / "python").absolute()
    log, url = webui_folder / "log.txt", f"http://127.0.0.1:{(port := free_port())}"
    request.session.webui_log = log  # type: ignore[attr-defined]
    checkpoint = next(iter(option("--webui-checkpoints").split(",")), None)
    command = command_line(path, python, port, webui_folder, option("--webui-args"), checkpoint)
    with (
        linked(ROOT, path / "extensions", "hypernetworks-under-test"),
        linked(PROBE, path / "extensions", "hypernetworks-probe"),
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
    """``"a1111"``, ``"forge"`` or ``"reforge"``."""
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


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: no hook of ours, no attribute, and the probe is off."""
    yield
    if "probed" in request.fixturenames:
        probed: Webui = request.getfixturevalue("probed")
        probed.post("/probe/recorded")
        state = probed.state()
        assert (state["our_hooks"], state["attributes"]) == (0, [])
