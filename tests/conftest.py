"""What all tests share: no network, one thread, and hypothesis without luck or clock."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(
    prefix="hypernetworks-tests-"
)  # the studio's hashes: not the user's
sys.path.insert(
    0, str(Path(__file__).parent)
)  # reference.py, laws/small_ldm.py, whatever the import mode

import pytest
import torch
from fake_webui import FakeWebui, installed
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)  # tests are many and small
settings.register_profile(
    "fixed",
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
        "--webui-runs", metavar="N", type=int, default=200, help="generations of the long run"
    )
    group.addoption(
        "--webui-screenshots", metavar="FOLDER", help="where the browser tests put screenshots"
    )
    group.addoption(
        "--neighbours",
        metavar="FOLDER",
        help="of other extensions: all tests run with them installed, loaded after ours and before it",
    )


def pytest_unconfigure() -> None:
    """Take the tests' own cache folder away."""
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture
def fake_webui(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeWebui]:
    """A small webui under the name ``modules``; like A1111, or like the one that indirect parametrization names."""
    from hypernetworks.hosts.webui import folders
    from hypernetworks.library import Library

    monkeypatch.setattr(folders, "_LIBRARY", Library(()))  # it outlives everything else of a webui
    with installed(tmp_path / "webui", getattr(request, "param", "a1111")) as webui:
        yield webui
