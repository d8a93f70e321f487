"""The tests of ``on_an_emulated_device.py``, in a process of their own.

torch counts the devices at the first backward pass of a process, and remembers a device that was
registered: neither can be undone, so that these tests would break others, and others them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).with_name("on_an_emulated_device.py")


def test_trainings_and_generations_on_an_emulated_device() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            str(TESTS),
            "-p",
            "no:xdist",
            "-p",
            "no:cacheprovider",
        ],
        cwd=TESTS.parents[2],
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert " passed" in done.stdout
