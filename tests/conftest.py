"""What all tests share: no network, one thread, and hypothesis without luck or clock."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
# Tests are many and small, and so are the processes they start, several at a time: with more
# threads, these would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(
    prefix="hypernetworks-tests-"
)  # the studio's hashes: not the user's
sys.path.insert(
    0, str(Path(__file__).parent)
)  # reference.py, laws/small_ldm.py, whatever the import mode

import pytest
from fake_webui import FakeWebui, installed
from fast_ring import group_of, is_all_slow, is_slow
from hypothesis import HealthCheck, settings
from left_out import FOLDER_MARKS, LeftOut

# Without bytecode, every process that a test starts would compile this project anew, and every run
# would rewrite the assertions of all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A run in the background, or under nohup, ignores these, and so would every program that a test
# starts.
for _name in ("SIGINT", "SIGHUP"):
    if signal.getsignal(number := getattr(signal, _name, signal.SIGINT)) == signal.SIG_IGN:
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )
settings.register_profile(
    "fixed",
    max_examples=50,  # always the same ones: a run with HYPOTHESIS_PROFILE=searching tries new ones
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)
settings.register_profile(
    "searching", settings.get_profile("fixed"), derandomize=False, max_examples=2000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


class _NoPackage:
    """The folder above is no package for pytest: only ComfyUI imports its ``__init__.py``, and
    pytest would also put the folder above that one into ``sys.path``.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: Any) -> Any:
        is_project = path == Path(__file__).parents[1]
        return pytest.Dir.from_parent(parent, path=path) if is_project else None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the opt-in tests in ``real_host/``; pytest takes them only from here."""
    group = parser.getgroup("a real webui")
    group.addoption("--webui", metavar="PATH", help="folder of a webui to test the extension in")
    group.addoption(
        "--webui-python", metavar="PYTHON", help="its interpreter (default PATH/venv/bin/python)"
    )
    group.addoption(
        "--webui-args", metavar="FLAGS", default="", help="more flags for its command line"
    )
    group.addoption(
        "--webui-url",
        metavar="URL",
        help="of one that runs already; tests that need the probe are skipped",
    )
    group.addoption(
        "--webui-checkpoints",
        metavar="A,B",
        default="",
        help="two SD1 checkpoints, as its list names them",
    )
    group.addoption(
        "--webui-families",
        metavar="FAMILY=NAME,…",
        default="",
        help="checkpoints of other families (sd2, sdxl, vega), as its list names them",
    )
    group.addoption(
        "--webui-runs", metavar="N", type=int, default=200, help="generations of the long run"
    )
    group.addoption(
        "--webui-screenshots", metavar="FOLDER", help="where the browser tests put screenshots"
    )
    group.addoption(
        "--neighbours",
        metavar="FOLDER",
        help=(
            "of other extensions: all tests run with them installed, loaded after ours and "
            "before it"
        ),
    )

    group = parser.getgroup("a real ComfyUI")
    group.addoption("--comfyui", metavar="PATH", help="folder of a ComfyUI to test the nodes in")
    group.addoption(
        "--comfyui-checkpoints",
        metavar="FOLDER",
        help="where sd1.safetensors and sdxl.safetensors are, or are made with random weights",
    )
    group.addoption(
        "--comfyui-pictures", metavar="FOLDER", help="where pictures of its page are kept"
    )
    group.addoption(
        "--comfyui-python",
        metavar="PYTHON",
        help="its interpreter (default PATH/venv/bin/python)",
    )

    parser.addoption(
        "--registry", action="store_true", help="run the tests that ask a package registry"
    )


UNSTEADY = ("browser", "hardening")
"""Folders whose tests drive other processes: on a machine of CI, whose other work can hold any of
them up for half a minute, they have a second try, which the end of the run names (RERUN).
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark slow tests, and those that have a second try; those that ask a registry run on
    request.
    """
    tests = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(tests)
        if path.parts[0] in UNSTEADY and os.environ.get("CI"):
            item.add_marker(pytest.mark.flaky(reruns=1))
        if is_slow(path.as_posix(), item.name.partition("[")[0]):
            item.add_marker("slow")
        if item.get_closest_marker("registry") and not config.getoption("--registry"):
            item.add_marker(pytest.mark.skip(reason="asks a package registry (--registry)"))
    put_long_files_first(items)


def put_long_files_first(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that no process waits for another at the end."""
    long = {
        item.path
        for item in items
        if item.get_closest_marker("slow") or item.get_closest_marker("browser")
    }
    items.sort(key=lambda item: item.path not in long)


SAME_PROCESS = {"tests/browser/test_sharing_the_page.py": "tests/browser/test_panel.py"}
"""Files that go to the process that has another one, whose servers they use."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share tests out by file, as ``--dist loadfile`` does, some files together."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            file = SAME_PROCESS.get(file, file)
            is_fast = WITHOUT.fullmatch(config.option.markexpr)
            return group_of(file.removeprefix("tests/")) if is_fast else file

    return Together(config, log)


LEFT_OUT = LeftOut()
ROOT = Path(__file__).parents[1]


WORKERS: list[pytest.Config] = []
"""The configuration, where this is one of several test processes (pytest-xdist)."""


def is_worker() -> bool:
    """Whether another process reports what this one does."""
    return bool(WORKERS)


def pytest_configure(config: pytest.Config) -> None:
    """See which process this is."""
    # Registered, because the hooks of this file don't see the folder above.
    config.pluginmanager.register(_NoPackage())
    if hasattr(config, "workerinput"):
        WORKERS.append(config)
    if is_worker() or not config.getoption("numprocesses", None):
        prepare_torch()


def prepare_torch() -> None:
    """Where tests run; the process that only shares them out needs no torch."""
    import torch

    torch.set_num_threads(1)  # whatever the variable says
    # For each test, pytest adds a handler to every logger that keeps its records to itself; torch
    # has more than forty of them.
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger) and logger.name.startswith("torch"):
            logger.propagate = True


WITHOUT = re.compile(r"not \w+( and not \w+)*")
"""What ``-m`` gets when it leaves groups out, as for the fast ring."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Open no file or folder whose tests are all left out.

    Each test process would import diffusers, transformers and gradio for them: that takes seconds.
    """
    expression = config.option.markexpr
    if not WITHOUT.fullmatch(expression):
        return None

    marks = set(marks_of_file(collection_path))
    if is_all_slow(collection_path.relative_to(ROOT / "tests").as_posix()):
        marks.add("slow")
    if marks.isdisjoint(re.findall(r"not (\w+)", expression)):
        return None
    asked_for = [Path(config.invocation_params.dir, a.partition("::")[0]) for a in config.args]
    for file in [collection_path, *collection_path.rglob("*.py")]:
        # pytest also asks about the neighbours of a file that the command line names.
        if file.name.startswith("test_") and not {file, *file.parents}.isdisjoint(asked_for):
            LEFT_OUT.leave_out_file(file.relative_to(ROOT).as_posix(), marks)
    return True


def marks_of(item: pytest.Item) -> set[str]:
    return {mark.name for mark in item.iter_markers()}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark tests by their folder, before ``-m`` selects."""
    for mark in marks_of_file(item.path):
        item.add_marker(mark)


@cache
def marks_of_file(path: Path) -> list[str]:
    """The marks that all tests of a file or folder have for where it is."""
    return [m for folder, m in FOLDER_MARKS.items() if ROOT / folder in (path, *path.parents)]


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what ``-m`` and ``-k`` leave out."""
    for item in items:
        LEFT_OUT.deselect(item.path.relative_to(ROOT).as_posix(), marks_of(item))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Count files that skip themselves as a whole."""
    if report.skipped:
        LEFT_OUT.skip(report.nodeid, set(), skip_reason(report))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count skipped tests; with several processes, in the one that hears of all."""
    if report.skipped and not hasattr(report, "wasxfail") and not is_worker():
        LEFT_OUT.skip(report.nodeid, set(report.keywords), skip_reason(report))


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run on a machine of CI that has no browser; a worker hands on what it counted."""
    if is_worker():
        session.config.workeroutput["left_out"] = LEFT_OUT.as_plain()  # type: ignore[attr-defined]
        return
    if LEFT_OUT.faults(ci=bool(os.environ.get("CI"))) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what the first worker left out when it collected; the others collected the same."""
    if node.gateway.id == "gw0":
        LEFT_OUT.add(getattr(node, "workeroutput", {}).get("left_out", {}))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why tests had a second try, and what the run left out, and how to get it."""
    tell_first_tries(terminalreporter)
    if lines := LEFT_OUT.lines():
        terminalreporter.section("left out of this run")
        for line in lines:
            terminalreporter.write_line(line)
    for fault in LEFT_OUT.faults(ci=bool(os.environ.get("CI"))):
        terminalreporter.write_line(f"FAILED: {fault}", red=True)


def tell_first_tries(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how tests failed that passed at their second try: it may be a fault that shows rarely."""
    if reports := terminalreporter.stats.get("rerun"):
        terminalreporter.section("first tries that failed")
        for report in reports:
            terminalreporter.write_line(f"{report.nodeid} ({report.when})", bold=True)
            for line in report.longreprtext.splitlines()[-12:]:
                terminalreporter.write_line(line)


def pytest_unconfigure() -> None:
    """Take the tests' own cache folder away."""
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture
def fake_webui(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeWebui]:
    """A small webui under the name ``modules``; like A1111, or like the one that indirect
    parametrization names."""
    from hypernetworks.hosts.webui import folders
    from hypernetworks.library import Library

    monkeypatch.setattr(folders, "_LIBRARY", Library(()))  # it outlives everything else of a webui
    with installed(tmp_path / "webui", getattr(request, "param", "a1111")) as webui:
        yield webui
