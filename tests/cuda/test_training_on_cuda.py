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


@pytest.mark.parametrize("memory", ["fp8", "streamed"])
def test_a_unet_in_less_memory(device: str, tmp_path: Path, memory: str) -> None:
    precision = "fp32" if device == "cpu" else "fp16"
    trained(tmp_path, "--device", device, "--precision", precision, "--memory", memory)
    state = torch.load(tmp_path / "runs" / "walls" / "state.pt", weights_only=True)
    assert state["step"] == 4
    assert all(bool(torch.isfinite(p).all()) for p in state["parameters"])


@pytest.mark.parametrize("twice", [False, True], ids=["kept", "checkpointing"])
@pytest.mark.parametrize("storage", ["fp8", "streamed"])
def test_stored_weights_give_the_gradients_of_the_weights_in_place(
    device: str, storage: str, twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bf16 and autocast, as trainings on a card compute; less memory is held meanwhile."""
    from contract.test_training_memory import SMALL, network
    from diffusers import UNet2DConditionModel

    import hypernetworks as hn
    from hypernetworks.hosts.diffusers.training import stored

    monkeypatch.setattr(stored, "SMALLEST", 256)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**SMALL).to(device, torch.bfloat16).eval().requires_grad_(False)
    sample = torch.randn(2, 4, 8, 8).to(device, torch.bfloat16)
    context = torch.randn(2, 5, 24).to(device, torch.bfloat16)

    def gradients() -> list[torch.Tensor]:
        made = network()
        made.to(device, torch.float32)
        made.train()
        with hn.apply(unet, [(made, 1.0)]):
            with torch.autocast(device, torch.bfloat16):
                predicted = unet(sample, torch.tensor(500, device=device), context).sample
            predicted.float().square().mean().backward()
        return [p.grad.cpu() for p in made.parameters() if p.grad is not None]

    def held() -> int:
        return torch.cuda.memory_allocated() if device == "cuda" else 0

    before = held()
    if twice:
        unet.enable_gradient_checkpointing()
    with stored.stored(unet, storage):
        assert device == "cpu" or held() < before
        layers = [layer for layer in unet.modules() if "forward" in vars(layer)]
        found = gradients()
    for layer in layers if storage == "fp8" else []:
        layer.weight.data = stored.Fp8(layer.weight).decoded()
    for one, other in zip(found, gradients(), strict=True):
        assert float((one - other).norm() / other.norm()) < 3e-2


def test_one_process_of_torchrun_with_nccl(cuda: str, tmp_path: Path) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1")
    trained(tmp_path, "--precision", "bf16", launcher=torchrun)
    assert (tmp_path / "runs" / "walls" / "state.pt").exists()
