"""Runs files of tests in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(*tests: Path) -> None:
    """Run all tests of some files; their output is the message when one fails."""
    line = [sys.executable, "-m", "pytest", *map(str, tests)]
    line += ["-p", "no:xdist", "-p", "no:cacheprovider"]
    done = subprocess.run(
        line,
        cwd=Path(__file__).parents[1],
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert " passed" in done.stdout
