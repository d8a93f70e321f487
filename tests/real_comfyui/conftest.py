"""The opt-in tests on a real ComfyUI: ``pytest tests/real_comfyui --comfyui PATH``.

It needs an SD1 checkpoint in fp32 in ``models/checkpoints``; one with random weights will do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comfyui_server import ComfyUI, running

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip these tests where no ComfyUI was named."""
    for item in items:
        if HERE in item.path.parents:
            if not config.getoption("--comfyui"):
                item.add_marker(pytest.mark.skip(reason="no --comfyui PATH"))
            elif item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def comfyui(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyUI]:
    """A running server."""
    path = Path(request.config.getoption("--comfyui")).resolve()
    python = Path(request.config.getoption("--comfyui-python") or path / "venv/bin/python")
    checkpoints = sorted((path / "models/checkpoints").glob("*.safetensors"))
    assert checkpoints, "no checkpoint in models/checkpoints"
    with running(path, python, tmp_path_factory.mktemp("comfyui"), checkpoints[0]) as host:
        yield host
