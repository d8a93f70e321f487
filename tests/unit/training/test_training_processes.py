"""Two processes joined by torch's data parallel learn what one process learns from the same global
batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train_together
from toys import Toy, toy_settings

import hypernetworks as hn
from hypernetworks import devices
from hypernetworks.errors import DeviceError, TrainingSettingsError
from hypernetworks.training import processes
from hypernetworks.training.processes import World

HERE = Path(__file__).parent


def start(folder: Path, size: int, steps: int) -> None:
    """Run the script in ``size`` processes, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join(map(str, (HERE, HERE.parents[2])))
    shared = {
        "PYTHONPATH": paths,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(size),
    }
    started = [
        subprocess.Popen(
            [sys.executable, HERE / "train_together.py", folder, str(steps)],
            env={
                **os.environ,
                **shared,
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        for process in started:
            errors = process.communicate(timeout=240)[1]
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()


@pytest.mark.slow
@pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch has no processes to join"
)
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Loss curve, gradient norms and weights, up to where the first process asks both to stop."""
    for folder in ("alone", "both"):
        (tmp_path / folder).mkdir()
    train_together.main(tmp_path / "alone", 5)
    start(tmp_path / "both", 2, 5)
    alone, both = (torch.load(tmp_path / folder / "seen.pt") for folder in ("alone", "both"))
    assert len(alone) == len(both) == 5
    for one, other in zip(alone, both, strict=True):
        assert one[:2] == pytest.approx(other[:2], rel=1e-4)
        assert one[2] is other[2] or one[2] == pytest.approx(other[2], rel=1e-4)
    assert [row[2] is None for row in alone] == [True, True, True, False, True]
    files = [hn.read(tmp_path / folder / "toy-5.safetensors") for folder in ("alone", "both")]
    fresh = Toy().weights()
    for one, other, before in zip(*(f.parameters() for f in files), fresh, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        assert not torch.equal(one, before)


@pytest.mark.parametrize(
    ("device", "has", "backend"),
    [
        ("cuda:1", {"nccl"}, "nccl"),
        ("cuda:1", set(), "gloo"),  # Windows
        ("cpu", {"nccl", "xccl"}, "gloo"),
        ("xpu:1", {"xccl"}, "xccl"),
        ("xpu:1", set(), None),
        ("mps", set(), None),
        ("privateuseone:0", set(), None),
    ],
)
def test_what_joins_processes_is_what_the_device_has(
    device: str, has: set[str], backend: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nccl", "xccl"):
        function = f"is_{name}_available"
        monkeypatch.setattr(
            torch.distributed, function, lambda name=name: name in has, raising=False
        )
    if backend is not None:
        assert processes.backend_for(device) == backend
        return
    with pytest.raises(TrainingSettingsError, match="start one process, or use the CPU"):
        processes.backend_for(device)


def test_more_processes_than_cards_are_told_how_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "absent", lambda kind: None if kind == "cuda" else "absent")
    monkeypatch.setattr(devices, "_count", lambda _: 2)
    monkeypatch.setattr(devices, "_try", lambda _: None)
    assert processes._device(None, 1, 2) == "cuda:1"
    assert processes._device("cuda:1", 3, 4) == "cuda:1"
    with pytest.raises(DeviceError, match="its number is 2, and there are 0, 1"):
        processes._device(None, 2, 3)


def test_a_batch_must_be_shared_out_evenly() -> None:
    world = World()
    world.size, world.rank = 3, 2
    assert list(world.share(6)) == [4, 5]
    with pytest.raises(TrainingSettingsError, match="use a multiple"):
        world.share(4)
    assert list(Toy().run(toy_settings())._gradients._share) == [0, 1, 2, 3]
