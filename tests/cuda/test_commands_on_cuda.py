"""What people do with the commands, on the device: images, sheets, and LoRAs of networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hypernetworks import cli

NETWORKS = Path(cli.__file__).parents[1] / "miniature" / "networks"
NEARBY = {"fp32": 0.5, "fp16": 2.0, "bf16": 8.0}
"""Mean difference of an image from that of the CPU in fp32, of 255, by the type of the weights."""


def image(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


def generated(folder: Path, device: str, precision: str, prompt: str) -> np.ndarray:
    target = folder / f"{precision}-{len(list(folder.iterdir()))}.png"
    given = ["generate", prompt, "-o", str(target), "--steps", "6", "--seed", "3"]
    assert cli.main([*given, "--device", device, "--precision", precision]) == 0
    return image(target)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_images_are_those_of_the_cpu(device: str, tmp_path: Path, precision: str) -> None:
    if device == "cpu" and precision == "fp16":
        pytest.skip("a CPU takes too long for it")
    prompt = "a red apple on blue"
    for asked in (prompt, f"{prompt} <hypernet:sepia:0.8>", f"{prompt} <hypernet:night:0@0,1@1>"):
        expected = generated(tmp_path, "cpu", "fp32", asked)
        made = generated(tmp_path, device, precision, asked)
        assert np.abs(made - expected).mean() <= NEARBY[precision], asked
    plain, styled = (generated(tmp_path, device, precision, p) for p in (prompt, asked))
    assert np.abs(plain - styled).mean() > 10


def test_an_image_to_begin_with_and_a_hires_pass(device: str, tmp_path: Path) -> None:
    begun, changed, large = (tmp_path / f"{name}.png" for name in ("begun", "changed", "large"))
    shared = ["--device", device, "--steps", "3"]
    assert cli.main(["generate", "a red apple", "-o", str(begun), *shared]) == 0
    prompt = "a red apple <hypernet:sepia:0.5:hr=1>"
    given = ["generate", prompt, "-o", str(changed), *shared, "--image", str(begun)]
    assert cli.main(given) == 0
    assert np.abs(image(changed) - image(begun)).mean() > 5
    assert cli.main(["generate", prompt, "-o", str(large), *shared, "--hires", "2"]) == 0
    assert image(large).shape == (192, 192, 3)


@pytest.mark.parametrize(
    ("fit", "precision"), [("least-squares", "fp16"), ("distill", "fp32"), ("distill", "bf16")]
)
def test_a_network_becomes_a_lora(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], fit: str, precision: str
) -> None:
    if device == "cpu" and precision != "bf16":
        pytest.skip("a rehearsal converts once")
    from hypernetworks.miniature.subjects import captions

    prompts, target = tmp_path / "prompts.txt", tmp_path / "sepia.safetensors"
    prompts.write_text("\n".join(captions()[::150]), encoding="utf-8")
    given = ["convert", str(NETWORKS / "sepia.safetensors"), str(target), "--to", "lora"]
    given += ["--base", "miniature", "--rank", "17", "--fit", fit]
    given += ["--train-steps", "4", "--batch", "2"]
    given += ["--prompts", str(prompts), "--steps", "3", "--device", device]
    assert cli.main([*given, "--precision", precision]) == 0

    tensors = load_file(target)
    assert tensors
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
    assert "%" in capsys.readouterr().out
    assert image(target.with_suffix(".sheet.png")).std() > 10
