"""The tests of ``compiled_unets.py`` and ``compiled_changes.py``, in a process of their own.

After thousands of other tests, torch's compiler took minutes for what takes it seconds.
"""

from __future__ import annotations

from pathlib import Path

import own_process
import pytest


@pytest.mark.slow
def test_compiled_unets() -> None:
    names = ("compiled_unets.py", "compiled_changes.py")
    own_process.run(*(Path(__file__).with_name(name) for name in names))
