"""Training on the device: bf16, fp16 with its scaler, activations computed twice, and one process
of several.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def trained(folder: Path, *options: str, launcher: tuple[str, ...] = ()) -> str:
    """Train the miniature for a few steps from the command line; returns what it said."""
    from PIL import Image

    pictures = folder / "pictures"
    pictures.mkdir()
    for number, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (96, 96), colour).save(pictures / f"{number}-a {colour} wall.png")
    start = launcher or (sys.executable,)
    command = [*start, "-m", "hypernetworks", "train", "walls", str(pictures)]
    command += ["--runs", str(folder / "runs"), "--steps", "4", "--batch", "2", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_a_few_steps(device: str, tmp_path: Path, precision: str, checkpointing: str) -> None:
    if device == "cpu" and (precision == "fp16" or checkpointing == "on"):
        pytest.skip("a rehearsal trains in fp32 and bf16 alone")
    options = ["--device", device, "--precision", precision, "--checkpointing", checkpointing]
    trained(tmp_path, *options)
    state = torch.load(tmp_path / "runs" / "walls" / "state.pt", weights_only=True)
    assert state["step"] == 4
    assert all(bool(torch.isfinite(p).all()) for p in state["parameters"])
    if precision == "fp16":
        assert state["scaler"]


def test_one_process_of_torchrun_with_nccl(cuda: str, tmp_path: Path) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1")
    trained(tmp_path, "--precision", "bf16", launcher=torchrun)
    assert (tmp_path / "runs" / "walls" / "state.pt").exists()
