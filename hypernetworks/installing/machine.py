"""What this machine has: graphics cards, drivers, operating system.

Nothing here may fail or take long: a wrong guess costs speed, an error the whole set-up.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from .wheels import Machine

ARCHITECTURES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}
QUERY = ["--query-gpu=driver_version,compute_cap", "--format=csv,noheader"]
ARC = ("0x56", "0xe2", "0x64")
"""First digits of the PCI ids of Arc Alchemist, Battlemage and Lunar Lake. Older Intel graphics
can't run torch's XPU build.
"""


def describe(python: tuple[int, int] | None = None) -> Machine:
    """This machine, for the table in :mod:`.wheels`.

    Args:
        python: of the environment, where it differs from the Python that runs this.
    """
    driver, capabilities = nvidia()
    system = platform.system()

    return Machine(
        system=system,
        architecture=ARCHITECTURES.get(platform.machine().lower(), platform.machine().lower()),
        python=python or (sys.version_info[0], sys.version_info[1]),
        driver=driver,
        capabilities=capabilities,
        is_silent=driver is None and bool(_nvidia_programs()),
        amd=Path("/dev/kfd").exists(),
        intel=has_arc(system),
        macos=macos(system),
        libc=glibc(system),
        bits=64 if sys.maxsize > 2**32 else 32,
        free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    )


def nvidia() -> tuple[int | None, tuple[tuple[int, int], ...]]:
    """The driver's major version and each card's compute capability, from ``nvidia-smi``."""
    for program in _nvidia_programs():
        found = parse_nvidia(_output([program, *QUERY]))
        if found[0] is not None:
            return found
        # Drivers before about 510 don't know compute_cap; ask for the version alone.
        found = parse_nvidia(_output([program, QUERY[0].split(",")[0], QUERY[1]]))
        if found[0] is not None:
            return found
    return None, ()


def parse_nvidia(text: str) -> tuple[int | None, tuple[tuple[int, int], ...]]:
    """Read ``580.95.05, 8.9`` lines, one per card; anything else counts as no card."""
    driver: int | None = None
    capabilities = []

    for line in text.splitlines():
        match = re.match(r"\s*(\d{3,4})\.\d+[\d.]*\s*(?:,\s*(\d+)\.(\d+))?", line)
        if match is None:
            continue
        driver = int(match[1])
        if match[2]:
            capabilities.append((int(match[2]), int(match[3])))
    return driver, tuple(capabilities)


def _nvidia_programs() -> list[str]:
    """Paths at which ``nvidia-smi`` exists."""
    # A 32-bit shell on Windows, or a shortened PATH, doesn't show System32; WSL has its own folder.
    windows = os.environ.get("SystemRoot", r"C:\Windows")  # noqa: SIM112 - its name on Windows
    programs = os.environ.get("ProgramFiles", r"C:\Program Files")  # noqa: SIM112
    places = [
        shutil.which("nvidia-smi"),
        f"{windows}\\System32\\nvidia-smi.exe",
        f"{programs}\\NVIDIA Corporation\\NVSMI\\nvidia-smi.exe",
        "/usr/lib/wsl/lib/nvidia-smi",
        "/usr/bin/nvidia-smi",
    ]
    return [place for place in dict.fromkeys(places) if place and Path(place).is_file()]


def has_arc(system: str, devices: Path = Path("/sys/class/drm")) -> bool:
    """Whether there is an Intel Arc card; the integrated graphics of older CPUs don't count."""
    if system == "Windows":
        question = "(Get-CimInstance Win32_VideoController).Name"
        names = _output(["powershell", "-NoProfile", "-Command", question])
        return any("Intel" in line and "Arc" in line for line in names.splitlines())

    for vendor in devices.glob("card*/device/vendor"):
        try:
            intel = vendor.read_text().strip() == "0x8086"
            if intel and vendor.with_name("device").read_text().strip().startswith(ARC):
                return True
        except OSError:
            continue
    return False


def macos(system: str) -> int | None:
    """The major version of macOS; ``None`` on other systems."""
    if system != "Darwin":
        return None

    version = platform.mac_ver()[0]
    # macOS tells a Python that was built for an older version 10.16, unless it asks like this.
    if version.startswith("10.16"):
        version = _output(["sw_vers", "-productVersion"], SYSTEM_VERSION_COMPAT="0") or version
    return 11 if version.startswith("10.16") else int(version.split(".")[0] or 0) or None


def glibc(system: str) -> tuple[int, int] | None:
    """The C library's version; ``(0, 0)`` where it is not glibc (Alpine)."""
    if system != "Linux":
        return None
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        text = ""
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _output(command: list[str], **environment: str) -> str:
    """What a command prints; nothing when it can't be run, fails, or takes more than 15 seconds."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=15,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
    except (OSError, subprocess.SubprocessError):
        return ""

    return done.stdout if done.returncode == 0 else ""
