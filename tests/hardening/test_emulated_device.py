"""The tests of ``on_an_emulated_device.py``, in a process of their own.

torch counts the devices at the first backward pass of a process, and remembers a device that was
registered: neither can be undone, so that these tests would break others, and others them.
"""

from __future__ import annotations

from pathlib import Path

import own_process


def test_trainings_and_generations_on_an_emulated_device() -> None:
    own_process.run(Path(__file__).with_name("on_an_emulated_device.py"))
