"""Every example workflow runs headless in a real ComfyUI, without a message, and saves an image."""

from __future__ import annotations

from pathlib import Path

import pytest
from comfyui_server import ComfyUI
from reference import Recipe
from test_comfyui_images import write
from workflows import WORKFLOWS, made_small, read, to_api

import hypernetworks as hn

NETWORKS = {"ink": 1, "night": 2, "sdxl-style": 3}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow(comfyui: ComfyUI, path: Path) -> None:
    """SDXL's on the SD1 checkpoint: its graph is the same as that of one network."""
    for name, seed in NETWORKS.items():
        written = Path(write(comfyui, name, Recipe((320, 640, 768, 1280), (1, 0.5, 1), seed=seed)))
        hn.write(hn.read(written), written.with_suffix(".safetensors"))
        written.unlink()
    checkpoint = next((comfyui.folder / "models/checkpoints").iterdir()).name
    graph = made_small(to_api(read(path), comfyui.get("/object_info")), checkpoint)
    history = comfyui.run(graph)
    assert history["status"]["status_str"] == "success", history["status"]
    texts = [output["text"] for output in history["outputs"].values() if "text" in output]
    assert texts == []
    saved = [i for output in history["outputs"].values() for i in output.get("images", [])]
    assert len(saved) == 1
    assert (comfyui.folder / "output" / saved[0]["filename"]).stat().st_size > 1000
