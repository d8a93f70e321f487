"""The tests of ``compiled_unets.py`` and ``compiled_changes.py``, each in a process of its own.

After thousands of other tests, torch's compiler took minutes for what takes it seconds.
"""

from __future__ import annotations

from pathlib import Path

import own_process
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compiled_unets", "compiled_changes"])
def test_compiled_unets(name: str) -> None:
    own_process.run(Path(__file__).with_name(f"{name}.py"))
