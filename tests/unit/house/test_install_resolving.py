"""Whether every Python and system gets wheels: opt-in, since it asks a package registry."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.parametrize("system", ["windows", "aarch64-apple-darwin", "x86_64-manylinux_2_28"])
@pytest.mark.parametrize("minor", range(10, 15))
def test_everything_has_wheels(system: str, minor: int) -> None:
    """By uv: ``pip install --dry-run --platform`` reads markers by the Python that runs it.

    On Linux, pip would look for torch's CUDA packages on Windows, too.
    """
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv")
    options = ["--quiet", "--only-binary", ":all:", "--extra", "studio", "-c", "constraints.txt"]
    where = ["--python-version", f"3.{minor}", "--python-platform", system]
    done = subprocess.run(
        [uv, "pip", "compile", *options, *where, "pyproject.toml"],
        cwd=ROOT,
        env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=290,
    )
    assert done.returncode == 0, done.stderr
    assert "torch==2.13.0" in done.stdout
