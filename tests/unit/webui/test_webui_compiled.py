"""The tests of ``compiled_sdnext.py``, in a process of their own.

Why: see ``laws/test_compiled_unets.py``.
"""

from __future__ import annotations

from pathlib import Path

import own_process
import pytest


@pytest.mark.slow
def test_compiled_sdnext() -> None:
    own_process.run(Path(__file__).with_name("compiled_sdnext.py"))
