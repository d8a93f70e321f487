"""Everything here runs on a CUDA device: ``pytest -m cuda``.

Where there is none it is skipped, unless ``HYPERNETWORKS_REHEARSE=cpu`` asks for what a CPU can run
of it, so that the tests themselves are tried before a GPU is at hand.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
REHEARSED = os.environ.get("HYPERNETWORKS_REHEARSE") == "cpu"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder, and skip it where it can't run."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.cuda)
        # What torch warns of on a card nobody has seen yet (TF32, compilers) must not end a test.
        item.add_marker(pytest.mark.filterwarnings("default"), append=False)
        if DEVICE == "cpu" and not REHEARSED:
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell of a failure at once: where time on a card is short, a run may be cut off."""
    is_told_here = "PYTEST_XDIST_WORKER" not in os.environ and DEVICE == "cuda"
    if report.failed and is_told_here:
        lines = report.longreprtext.splitlines()[-40:]
        print(f"\nFAILED {report.nodeid}", *lines, sep="\n", file=sys.stderr, flush=True)


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The device, exact: no TF32, no kernels that differ from run to run.

    All hosts are made on it.
    """
    monkeypatch.setattr("laws.hosts.DEVICE", DEVICE)
    monkeypatch.setattr("hypernetworks.patching.folded._REFOLD_ROWS_ELSEWHERE", 1, raising=False)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    yield DEVICE
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = before[1], False


@pytest.fixture
def cuda(device: str) -> str:
    """For what has no counterpart on a CPU."""
    if device != "cuda":
        pytest.skip("there is no CUDA device, and a CPU has nothing like it")
    return device
