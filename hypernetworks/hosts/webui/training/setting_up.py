"""Makes the extension's ``.venv`` for a webui whose Python can't train.

This runs ``install.py studio`` as a person would. The webui's own environment stays as it is.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from ....errors import HypernetworkError, printable
from .. import settings
from ..commands import ROOT
from . import pythons
from .running import start

_LOG = ROOT / ".venv-set-up.log"
_MOST_LINES = 6


class SetUp:
    """The one set-up of this webui."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start it in the background.

        Raises:
            HypernetworkError: it runs already, or the webui can be reached from other machines.
        """
        if settings.is_remote():
            raise HypernetworkError(
                "this webui can be reached from other machines, so its page installs nothing: run "
                f"`python install.py studio` in {ROOT.name} yourself"
            )

        with self._lock:
            if self.is_running():
                raise HypernetworkError("the set-up is running already")
            pythons.forget()
            with _LOG.open("wb") as log:
                self._process = start(command(), log)

    def is_running(self) -> bool:
        """Whether it has begun and not ended."""
        return self._process is not None and self._process.poll() is None

    def said(self) -> str:
        """The last lines that it printed, and how it ended; empty if it was never begun."""
        if self._process is None:
            return ""
        text = _LOG.read_text(encoding="utf-8", errors="replace") if _LOG.exists() else ""
        lines = [printable(line.strip(), 200) for line in text.splitlines() if line.strip()]
        if self.is_running():
            title = "Setting up the extension's own environment …"
        elif self._process.returncode:
            title = "The set-up failed."
        else:
            return "The set-up has ended: you can train now."
        return "\n".join([title, *lines[-_MOST_LINES:]])


def command() -> list[str]:
    """``--help`` makes the studio print its options and end once everything is installed."""
    return [sys.executable, str(Path(ROOT) / "install.py"), "studio", "--help"]
