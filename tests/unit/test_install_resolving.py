"""Whether pip finds wheels for every Python and system: opt-in, since it asks a package registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLATFORMS = {
    "windows": ["win_amd64"],
    "macos": ["macosx_14_0_arm64", "macosx_11_0_arm64"],
    "linux": ["manylinux_2_28_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64"],
}


@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.parametrize("system", PLATFORMS)
@pytest.mark.parametrize("minor", range(10, 15))
def test_everything_has_wheels(tmp_path: Path, system: str, minor: int) -> None:
    """pip reads markers by the Python that runs it, so that the constraints' own are resolved here."""
    tomllib = pytest.importorskip("tomllib")
    markers = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["studio"]]
    constraints = tmp_path / "constraints.txt"
    lines = []
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = markers.Requirement(line)
            if pin.marker is None or pin.marker.evaluate({"python_version": f"3.{minor}"}):
                lines.append(f"{pin.name}{pin.specifier}")
    constraints.write_text("\n".join(lines))
    platforms = [word for name in PLATFORMS[system] for word in ("--platform", name)]
    options = ["install", "--dry-run", "--quiet", "--ignore-installed", "--only-binary=:all:"]
    where = ["--target", str(tmp_path / "x"), "--python-version", f"3.{minor}", *platforms]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *options, *where, "-c", str(constraints), *wanted],
        capture_output=True,
        text=True,
        check=False,
        timeout=290,
    )
    assert done.returncode == 0, done.stderr
