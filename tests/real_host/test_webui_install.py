"""``install.py`` as the webui runs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from webui_server import ROOT


def test_it_is_silent_where_nothing_is_missing(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--webui"):
        pytest.skip("needs the webui's folder (--webui)")
    webui = Path(request.config.getoption("--webui")).resolve()
    python = request.config.getoption("--webui-python") or str(webui / "venv" / "bin" / "python")
    environment = os.environ | {"PYTHONPATH": str(webui), "WEBUI_LAUNCH_LIVE_OUTPUT": "0"}
    done = subprocess.run(
        [python, str(ROOT / "install.py")],
        cwd=webui,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "")
