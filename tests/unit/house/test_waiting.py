"""No call of a UNet waits for a device because of networks, after their first use: counted on the
meta device, which takes the path of a GPU and has no numbers to read.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import hypernetworks as hn
from hypernetworks.patching import apply_per_picture

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def counts() -> Any:
    """The benchmark's counter."""
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.gpu import counts
    finally:
        sys.path.remove(str(ROOT))
    return counts


@pytest.fixture(scope="module")
def gpu(counts: Any) -> Any:
    """The counter, and the benchmark's UNets and networks."""
    pytest.importorskip("diffusers")
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.gpu import models
    finally:
        sys.path.remove(str(ROOT))
    return counts, models


@pytest.fixture(scope="module")
def subject(gpu: Any) -> Any:
    return gpu[1].Subject("SD1.5", 512, torch.float16, "meta", True)


@pytest.mark.slow
@pytest.mark.parametrize("multiplier", [0.8, "0.2@0,1@1"])
def test_no_stack_waits(gpu: Any, subject: Any, multiplier: float | str) -> None:
    counts, models = gpu
    inputs = subject.inputs()
    # What moves a multiplier is the same for all that are folded, and for all that aren't.
    names = None if multiplier == 0.8 else ("relu", "three linear")
    for name, stack in models.stacks(subject, names).items():
        networks = [(network, multiplier) for network, _ in stack]
        with torch.no_grad(), hn.apply(subject.unet, networks) as handle:
            subject.call(inputs)
            handle.at(1, 2)
            with counts.Waits() as counted:
                subject.call(inputs)
        assert counted.operators.total() == 0, (name, counted.operators)


@pytest.mark.slow
@torch.no_grad()
def test_images_with_different_networks_do_not_wait(
    gpu: Any, subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their rows are brought to the device once, as bringing them is waited for."""
    counts, models = gpu
    inputs, made = subject.inputs(), list(models.stacks(subject, ("relu", "linear")).values())
    with apply_per_picture(subject.unet, made, lambda *_: (0, 1)):
        subject.call(inputs)
        monkeypatch.setattr(torch, "tensor", None)
        with counts.Waits() as counted:
            subject.call(inputs)
    assert counted.operators.total() == 0, counted.operators


def test_what_waits_is_counted(counts: Any) -> None:
    with counts.Waits() as counted:
        x = torch.empty(4, device="meta")
        torch.empty(4).to("meta")
        x.copy_(torch.empty(4))
        with pytest.raises((RuntimeError, NotImplementedError)):
            x.sum().item()
        with pytest.raises((RuntimeError, NotImplementedError)):
            torch.equal(x, x)
        with pytest.raises((RuntimeError, NotImplementedError)):
            x.nonzero()
        torch.ones(3).sum().item()
    assert dict(counted.operators) == {
        "_to_copy to meta": 1,
        "copy_ to meta": 1,
        "_local_scalar_dense": 1,
        "equal": 1,
        "nonzero": 1,
    }
