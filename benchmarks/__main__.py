"""All benchmarks of the project, one after the other: ``python benchmarks [--output FOLDER]``. Takes about an hour.

Each can be run alone, and says more with ``--help``: ``seam.py``, ``unet_call.py``, ``loading.py``, ``training.py``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("seam", "unet_call", "loading", "training")


def main() -> int:
    """Run them; returns the number of those that failed."""
    parser = argparse.ArgumentParser(prog="python benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--output", type=Path, default=Path("build"), help="folder for the JSON files"
    )
    options = parser.parse_args()
    failed = 0
    for name in NAMES:
        print(f"\n# {name}", flush=True)
        command = [
            sys.executable,
            str(HERE / f"{name}.py"),
            "--output",
            str(options.output / f"{name}.json"),
        ]
        failed += subprocess.run(command, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
