"""How this project's own commands are run from a webui, in a process of their own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ...errors import HypernetworkError

ROOT = Path(__file__).parents[3]
"""The extension's folder."""
NO_WINDOW: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)
"""On Windows, a console program would open a window of its own."""


def environment() -> dict[str, str]:
    """The variables with which a Python finds this package, before any other one of its name."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONIOENCODING": "utf-8",  # of the messages that the webui reads, on Windows too
        "PYTHONUNBUFFERED": "1",
    }


def selected_checkpoint() -> Path:
    """The file of the checkpoint that is selected in the webui, as an absolute path.

    Raises:
        HypernetworkError: none is.
    """
    from modules import sd_models

    chosen = sd_models.select_checkpoint()
    if chosen is None:
        raise HypernetworkError("no checkpoint is selected: select the one that you use it with")
    return Path(chosen.filename).absolute()
