"""The workflow for a public host: what can be checked of it without that host."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
yaml = pytest.importorskip("yaml")


def workflow() -> dict[Any, Any]:
    loaded = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def commands() -> Iterator[list[str]]:
    for job in workflow()["jobs"].values():
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            if "run" in step:
                yield shlex.split(step["run"])


def test_it_starts_on_pushes_and_pull_requests() -> None:
    assert set(workflow()[True]) == {"push", "pull_request"}  # YAML reads the key `on` as true


def test_systems_and_pythons() -> None:
    matrix = workflow()["jobs"]["tests"]["strategy"]["matrix"]
    assert [name.split("-")[0] for name in matrix["os"]] == ["ubuntu", "windows", "macos"]
    assert matrix["python"] == ["3.10", "3.12", "3.13"]  # quoted, or 3.10 would be 3.1


def test_every_command_exists_here() -> None:
    lines = list(commands())
    assert len(lines) > 5
    for line in lines:
        assert line[0] == "python"
        module = line[2] if line[1] == "-m" else line[1]
        assert module in {"pip", "ruff", "mypy", "pytest", "install.py", "benchmarks.gpu"}
        if module.endswith(".py") or module.startswith("benchmarks"):
            path = ROOT / module.replace("benchmarks.", "benchmarks/")
            assert path.exists(), module


def test_what_runs_on_a_gpu_is_rehearsed() -> None:
    """All of ``tests/cuda`` would be skipped without the variable, and nothing would be tried."""
    job = workflow()["jobs"]["rehearsal"]
    lines = [step["run"] for step in job["steps"] if "run" in step]
    conftest = (ROOT / "tests" / "cuda" / "conftest.py").read_text(encoding="utf-8")
    (name,) = re.findall(r'os\.environ\.get\("(\w+)"\) == "cpu"', conftest)
    assert job["env"] == {name: "cpu"}
    assert any("-m cuda tests/cuda" in line for line in lines)
    assert any("benchmarks.gpu --rehearse" in line for line in lines)


def test_every_path_exists() -> None:
    paths = [
        word for line in commands() for word in line if re.match(r"(tests/|constraints)", word)
    ]
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path


def test_every_marker_exists() -> None:
    declared = set(
        re.findall(r'^    "(\w+): ', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    )
    used = {
        name
        for line in commands()
        for word in line[3:]
        if " and " in word
        for name in re.findall(r"not (\w+)", word)
    }
    assert used
    assert used <= declared
