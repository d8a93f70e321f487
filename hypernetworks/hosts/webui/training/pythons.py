"""Which Python can run the trainer: the webui's own, or the one in the extension's ``.venv``.

Packages are asked for in a process of its own: importing diffusers into the webui would change
what the webui has loaded. Nothing is ever installed into the webui's environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..commands import NO_WINDOW, ROOT, environment

_NEEDED = {"torch": (2, 1), "diffusers": (0, 36), "transformers": (4, 46), "accelerate": (1, 0)}
"""Lowest versions, as in pyproject.toml."""
_PROBE = f"""
import importlib, importlib.metadata as m, re
for name, lowest in {_NEEDED!r}.items():
    found = tuple(int(part) for part in re.findall(r"\\d+", m.version(name))[:2])
    assert found >= lowest, (name, found)
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel
print("ready")
"""
_LONGEST = 180
"""Seconds: importing diffusers from a slow disk for the first time takes a minute."""
_found: dict[Path, bool] = {}


def own_environment() -> Path:
    """The interpreter of the extension's ``.venv``, which needn't exist."""
    return ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def able() -> Path | None:
    """The first Python that can train, or ``None``.

    Takes some seconds when first asked; what was found able is remembered.
    """
    return next(filter(_is_able, _candidates()), None)


def known() -> bool | None:
    """Whether one can train; ``None`` until that was asked for."""
    if True in _found.values():
        return True
    return False if all(python in _found for python in _candidates()) else None


def forget() -> None:
    """Ask anew next time: something was installed."""
    _found.clear()


def _candidates() -> list[Path]:
    return [python for python in (Path(sys.executable), own_environment()) if python.is_file()]


def _is_able(python: Path) -> bool:
    if python not in _found:
        try:
            done = subprocess.run(
                [str(python), "-c", _PROBE],
                capture_output=True,
                text=True,
                env=environment(),
                check=False,
                timeout=_LONGEST,
                creationflags=NO_WINDOW,
            )
            _found[python] = done.stdout.strip().endswith("ready")
        except (OSError, subprocess.SubprocessError):
            _found[python] = False
    return _found[python]
