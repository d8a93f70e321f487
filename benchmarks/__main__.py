"""All benchmarks of the project, one after the other: ``python -m benchmarks [--output FOLDER]``.
Takes about an hour.

Each can be run alone, and says more with ``--help``: ``python -m benchmarks.seam``, and
``unet_call``, ``loading``, ``training``. What there is to measure on a GPU is ``python -m
benchmarks.gpu``; in a real ComfyUI, ``python -m benchmarks.comfyui_overhead``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("seam", "unet_call", "loading", "training")


def main() -> int:
    """Run them; returns the number of those that failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--output", type=Path, default=Path("build"), help="folder for the JSON files"
    )
    options = parser.parse_args()
    failed = 0
    for name in NAMES:
        print(f"\n# {name}", flush=True)
        command = [
            sys.executable,
            "-m",
            f"benchmarks.{name}",
            "--output",
            str((options.output / f"{name}.json").resolve()),
        ]
        failed += subprocess.run(command, cwd=ROOT, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
