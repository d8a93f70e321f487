"""Every example workflow runs headless in a real ComfyUI, without a message, and saves an image."""

from __future__ import annotations

from pathlib import Path

import pytest
from comfyui_server import ComfyUI
from graphs import write
from reference import Recipe
from workflows import NETWORKS, WORKFLOWS, made_small, read, to_api

import hypernetworks as hn


def write_networks(comfyui: ComfyUI) -> None:
    """Those that the workflows name."""
    recipes = {n: Recipe((320, 640, 768), (1, 0.5, 1), seed=seed) for n, seed in NETWORKS.items()}
    recipes["sdxl-style"] = Recipe((640, 1280, 2048), (1, 0.5, 1))
    for name, recipe in recipes.items():
        written = Path(write(comfyui, name, recipe))
        hn.write(hn.read(written), written.with_suffix(".safetensors"))
        written.unlink()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow(comfyui: ComfyUI, path: Path) -> None:
    write_networks(comfyui)
    info = comfyui.get("/object_info")
    history = comfyui.run(to_api(made_small(read(path), info, comfyui.checkpoints), info))
    assert history["status"]["status_str"] == "success", history["status"]
    texts = [output["text"] for output in history["outputs"].values() if "text" in output]
    assert texts == []
    saved = [i for output in history["outputs"].values() for i in output.get("images", [])]
    assert len(saved) == 1
    assert (comfyui.folder / "output" / saved[0]["filename"]).stat().st_size > 1000
