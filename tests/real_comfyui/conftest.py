"""The opt-in tests on a real ComfyUI: ``pytest tests/real_comfyui --comfyui PATH``.

Its checkpoints have random weights, and are made once: see ``make_checkpoint.py``.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import graphs
import pytest
import torch
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
    given = request.config.getoption("--comfyui-checkpoints")
    folder = Path(given) if given else request.config.cache.mkdir("comfyui-checkpoints")
    checkpoints = {kind: _checkpoint(path, python, folder, kind) for kind in ("sd1", "sdxl")}
    with running(path, python, tmp_path_factory.mktemp("comfyui"), checkpoints) as host:
        yield host


def _checkpoint(comfyui: Path, python: Path, folder: Path, kind: str) -> Path:
    found = folder.resolve() / f"{kind}.safetensors"
    if not found.exists():
        command = [str(python), str(HERE / "make_checkpoint.py"), kind, str(found)]
        done = subprocess.run(command, cwd=comfyui, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    return found


@pytest.fixture(scope="session")
def plain(comfyui: ComfyUI) -> torch.Tensor:
    """The latent without a network."""
    return graphs.latent(comfyui, graphs.graph(comfyui))
