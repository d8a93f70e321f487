"""Sets up whatever is needed to run.

Run by a webui (no argument): looks whether anything is missing, changes nothing, and is silent when all is there.
Run by a person: ``python install.py studio`` or ``python install.py test`` makes ``.venv`` beside this file, installs
what that needs, and does it. The second time it starts at once. Needs only the standard library.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
EXTRAS = {"studio": "studio", "test": "studio,test"}
NEEDED_BY_WEBUI = ("torch", "numpy", "safetensors")


def main(arguments: list[str]) -> int:
    """Do what the first argument says; returns the exit code."""
    if not arguments:
        return check_webui()
    if arguments[0] not in EXTRAS:
        print(
            "usage: python install.py studio [--port N] [--no-browser] [...]\n       python install.py test [...]"
        )
        return 0 if arguments[0] in ("-h", "--help") else 2
    if sys.version_info < (3, 10):  # noqa: UP036 - this very check needs to run on older ones
        print(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}.", file=sys.stderr)
        return 2
    try:
        prepare(arguments[0])
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        print(
            f"\nThe set-up failed at: {command}\nRun the command again to go on.", file=sys.stderr
        )
        return 2
    return run(arguments[0], arguments[1:])


def check_webui() -> int:
    """What a webui's start needs: one line when a package is missing, otherwise nothing."""
    missing = [name for name in NEEDED_BY_WEBUI if find_spec(name) is None]
    if missing:
        print(
            f"Hypernetworks: {', '.join(missing)} is missing; the webui's own requirements bring it. Nothing done."
        )
    return 0


def python() -> Path:
    """The environment's interpreter."""
    return ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def stamp(task: str) -> str:
    """Changes whenever the environment has to be made again."""
    sources = [ROOT / "pyproject.toml", ROOT / "constraints.txt", Path(__file__)]
    text = (
        b"".join(path.read_bytes() for path in sources)
        + f"{sys.version} {ROOT} {EXTRAS[task]}".encode()
    )
    return hashlib.sha256(text).hexdigest()


def mark(task: str) -> Path:
    """Where the stamp of a finished set-up is kept."""
    return ENVIRONMENT / f".ready-{task}"


def prepare(task: str) -> None:
    """Make the environment and install, unless that was done before.

    Raises:
        subprocess.CalledProcessError: a step failed; it printed why.
    """
    enough = [task, "test"]  # the tests' environment holds all that the studio needs
    if python().exists() and any(
        mark(other).exists() and mark(other).read_text() == stamp(other) for other in enough
    ):
        return
    print("Setting up (once, a few minutes) ...", flush=True)
    if not python().exists():
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        except subprocess.CalledProcessError:
            print(
                "On Debian and Ubuntu, `sudo apt install python3-venv` brings what is missing.",
                file=sys.stderr,
            )
            raise
    pip = [
        str(python()),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "-c",
        "constraints.txt",
    ]
    installed = (
        subprocess.run(
            [str(python()), "-c", "import torch"], capture_output=True, check=False
        ).returncode
        == 0
    )
    if not installed:
        print("  torch ...", flush=True)
        small = wants_cpu_wheels() and not subprocess.call(
            [*pip, "torch", "--index-url", CPU_WHEELS], cwd=ROOT
        )
        if not small:
            subprocess.run([*pip, "torch"], cwd=ROOT, check=True)
    print("  everything else ...", flush=True)
    subprocess.run([*pip, "-e", f".[{EXTRAS[task]}]"], cwd=ROOT, check=True)
    mark(task).write_text(stamp(task))


def wants_cpu_wheels() -> bool:
    """On Linux without an NVIDIA GPU, PyTorch's own small wheels, when its server answers within two seconds."""
    if (
        sys.platform != "linux"
        or shutil.which("nvidia-smi")
        or Path("/proc/driver/nvidia").exists()
    ):
        return False
    try:
        with socket.create_connection((CPU_WHEELS.split("/")[2], 443), timeout=2):
            return True
    except OSError:
        return False


def run(task: str, arguments: list[str]) -> int:
    """Start the page, or the tests."""
    module = ["hypernetworks", "studio"] if task == "studio" else ["pytest"]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    try:
        return subprocess.call(
            [str(python()), "-m", *module, *arguments], cwd=ROOT, env=environment
        )
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
