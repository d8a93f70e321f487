"""What a run leaves out is said at its end, with how to get it; on CI a missing browser fails
it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from left_out import FOLDER_MARKS, GROUPS, LeftOut, group_of

ROOT = Path(__file__).parents[3]
BROWSER = "tests/browser/test_studio.py::test_x"
NO_CHROMIUM = "no Chromium or Google Chrome on this machine"


@pytest.mark.parametrize(
    ("path", "marks", "reason", "group"),
    [
        (BROWSER, set(), "", "browser"),
        ("tests/browser/test_studio.py", set(), "could not import 'playwright'", "browser"),
        ("tests/real_host/test_api.py::test_x", {"webui"}, "no --webui PATH", "webui"),
        ("tests/contract/test_comfyui.py::test_x", set(), "HYPERNETWORKS_WEBUI_SOURCES", "sources"),
        ("tests/contract/test_webui_sources.py::test_x", set(), "no sources of forge", "sources"),
        ("tests/unit/training/test_training.py::test_x", {"slow"}, "", "slow"),
        ("tests/cuda/test_memory.py::test_x", set(), "", "cuda"),
        ("tests/hardening/test_faults.py::test_x", {"slow", "cuda"}, "", "cuda"),
        ("tests/unit/files/test_x.py::test_x", {"skipif"}, "Windows has no such names", ""),
    ],
)
def test_groups(path: str, marks: set[str], reason: str, group: str) -> None:
    assert group_of(path, marks, reason) == group


def test_a_run_that_left_nothing_out_says_nothing() -> None:
    assert LeftOut().lines() == []


def test_each_group_is_said_with_how_to_get_it() -> None:
    left_out = LeftOut()
    left_out.skip(BROWSER, {"browser"}, NO_CHROMIUM)
    left_out.deselect(BROWSER, {"browser"})
    left_out.deselect("tests/hardening/test_faults.py", {"slow"})
    left_out.skip("tests/unit/files/test_x.py::test_x", set(), "no pipes here")
    left_out.leave_out_file("tests/cuda/test_memory.py", {"cuda"})
    left_out.leave_out_file("tests/cuda/test_speed.py", {"cuda"})
    left_out.add({"files": {"comfyui": 1}})  # what another process counted

    text = "\n".join(left_out.lines())
    assert "browser: 1 skipped, 1 not selected" in text
    assert GROUPS["browser"].how in text
    assert "slow: 1 not selected" in text
    assert "1 skipped: no pipes here" in text
    assert "cuda: 2 files not selected (" in text
    assert "comfyui: 1 file not selected (" in text
    assert "webui" not in text


@pytest.mark.parametrize(
    ("reason", "ci", "fails"),
    [
        (NO_CHROMIUM, True, True),
        ("could not import 'playwright.sync_api'", True, True),
        (NO_CHROMIUM, False, False),
        ("gradio 3.41.2 and its companions need Python 3.10 to 3.12", True, False),
    ],
)
def test_on_ci_a_missing_browser_is_a_fault(reason: str, ci: bool, fails: bool) -> None:
    left_out = LeftOut()
    left_out.skip(BROWSER, {"browser"}, reason)
    assert bool(left_out.faults(ci)) == fails


@pytest.mark.slow
@pytest.mark.parametrize(("ci", "code", "processes"), [("true", 1, "1"), ("", 0, "0")])
def test_a_run_without_a_browser(ci: str, code: int, processes: str) -> None:
    tests = ["-p", "no:cacheprovider", "-n", processes, "tests/browser/test_markup.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests, "-k", "not studio"],
        cwd=ROOT,
        env={**os.environ, "CI": ci, "CHROMIUM": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == code, done.stdout
    assert GROUPS["browser"].how in done.stdout
    assert ("FAILED: CI is set" in done.stdout) == bool(code)


@pytest.mark.parametrize("folder", FOLDER_MARKS)
def test_folders_are_marked(folder: str, request: pytest.FixtureRequest) -> None:
    assert (ROOT / folder).exists() or folder == "tests/cuda/"
    registered = request.config.getini("markers")
    assert any(line.startswith(f"{FOLDER_MARKS[folder]}:") for line in registered)
