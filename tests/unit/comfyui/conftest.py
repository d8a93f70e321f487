"""Our nodes on the fake ComfyUI."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comfy_models import Model, Patcher

FAKE = Path(__file__).parents[2] / "fake_comfyui"
OURS = "hypernetworks.hosts.comfyui"
THEIRS = {path.stem for path in FAKE.iterdir()}


def _forget() -> None:
    for name in [n for n in sys.modules if n.startswith(OURS) or n.split(".")[0] in THEIRS]:
        del sys.modules[name]


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Our package on the fake ComfyUI, with a folder of networks."""
    monkeypatch.syspath_prepend(FAKE)
    _forget()
    import folder_paths
    import server

    from hypernetworks.hosts.comfyui import extension, networks, sampling

    folder = tmp_path / "hypernetworks"
    folder.mkdir()
    folder_paths.FOLDERS = [str(folder)]
    for kind in ("loras", "checkpoints"):
        (tmp_path / kind).mkdir()
        folder_paths.OTHER_FOLDERS[kind] = str(tmp_path / kind)
    yield SimpleNamespace(
        folder=folder,
        models=tmp_path,
        nodes={node.define_schema().node_id: node for node in extension.NODES},
        networks=networks,
        sampling=sampling,
        told=server.PromptServer.instance.told,
    )
    _forget()


@pytest.fixture
def patcher() -> Patcher:
    return Patcher(Model())
