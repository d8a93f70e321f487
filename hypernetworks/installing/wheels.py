"""Which torch a machine gets: a pure function of its hardware, system and Python.

Facts, looked up on 2026-11-27:

* Which CUDA build has kernels for which compute capability, and which Pythons have wheels: "Release
  Compatibility Matrix" and "PyTorch CUDA Support Matrix" in RELEASE.md of pytorch/pytorch, as
  changed by its pull requests 182849 (2.12) and 187075 (2.13): cu126 holds 5.0 to 9.0, cu130 holds
  7.5 to 12.0; ROCm 7.2; Python 3.10 to 3.14. The last release with cu128 (kernels for 12.0, runs on
  12.x drivers) is 2.11: pull request 175253.
* Which driver a CUDA release needs: "Minor Version Compatibility" in NVIDIA's CUDA Compatibility
  guide: 525 for 12.x (528 on Windows, CUDA 12.0's release notes), 580 for 13.x.
* Names of wheels for Windows, as other projects' lock files have them from PyTorch's index:
  ``torch-2.13.0+cu130-cp312-cp312-win_amd64.whl``, the same with ``cp310``, and with ``cu126`` and
  ``cp314``. The tests with ``--registry`` ask the index itself.
* Wheels on PyPI, tried with ``pip install --dry-run``: Linux gets the CUDA 13.0 build, Windows the
  CPU build. 2.13 needs macOS 14 on Arm, 2.11 is the last for macOS 11; 2.2.2 is the last for Intel
  Macs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

WHEELS = "https://download.pytorch.org/whl/"
PINNED = "2.13.0"
LAST_WITH_CUDA_12_8 = "2.11.0"  # the only wheels for Blackwell cards under drivers older than 580
LAST_FOR_MACOS_11 = "2.11.0"
OLDEST, NEWEST = (3, 10), (3, 14)
BUILDS = {
    "cpu": "cpu",
    "cu126": "cu126",
    "cu128": "cu128",
    "cu130": "cu130",
    "rocm": "rocm7.2",
    "xpu": "xpu",
}
"""Names that ``--torch`` accepts, and the folder of PyTorch's index for each."""

PY_LAUNCHER = ", such as `py -3.12 install.py studio` (`py --list` shows which are installed)"
"""How Windows starts a Python that isn't the newest."""


@dataclass(frozen=True)
class Machine:
    """What the choice of a wheel depends on.

    Attributes:
        system: ``Linux``, ``Windows`` or ``Darwin``.
        architecture: ``x86_64``, ``arm64``, or whatever else the system says.
        python: major and minor version.
        driver: the NVIDIA driver's major version; ``None`` without one.
        capabilities: compute capability of each NVIDIA card, ``(8, 9)``; empty when unknown.
        is_silent: whether NVIDIA's program is there but tells no driver.
        amd: a card that ROCm can open (Linux).
        intel: a discrete Intel card.
        macos: major version of macOS.
        libc: ``glibc``'s version; ``(0, 0)`` for another C library; ``None`` elsewhere than on
            Linux.
        bits: of the Python, not of the system.
        free_threaded: a Python without the global interpreter lock.
    """

    system: str
    architecture: str
    python: tuple[int, int] = (3, 12)
    driver: int | None = None
    capabilities: tuple[tuple[int, int], ...] = ()
    is_silent: bool = False
    amd: bool = False
    intel: bool = False
    macos: int | None = None
    libc: tuple[int, int] | None = None
    bits: int = 64
    free_threaded: bool = False


@dataclass(frozen=True)
class Choice:
    """The torch to install.

    Attributes:
        build: a name in :data:`BUILDS`, ``pypi``, or the user's own value.
        pip: arguments for ``pip install``.
        reason: why, in words, for the user.
        fallback: arguments for ``pip install`` if PyTorch's index doesn't answer.
    """

    build: str
    pip: tuple[str, ...]
    reason: str
    fallback: tuple[str, ...] | None = None


def impossible(machine: Machine) -> str | None:
    """Why no torch can be installed here, and what works instead; ``None`` if one can."""
    if not OLDEST <= machine.python <= NEWEST:
        return (
            f"This is Python {machine.python[0]}.{machine.python[1]}, and PyTorch {PINNED} and the "
            f"studio's packages are tested with 3.{OLDEST[1]} to 3.{NEWEST[1]}: run install.py "
            f"with one of those{PY_LAUNCHER if machine.system == 'Windows' else ''}."
        )
    if machine.bits < 64:
        return "This is a 32-bit Python, and PyTorch has no 32-bit wheels: install a 64-bit Python."
    if machine.free_threaded:
        return (
            "This is a free-threaded Python, which gradio does not support: use the ordinary build."
        )
    if machine.system == "Darwin":
        return _impossible_mac(machine)
    if machine.system == "Windows" and machine.architecture != "x86_64":
        return (
            "PyTorch's packages for Windows on Arm are incomplete: install the 64-bit Intel/AMD "
            "(x64) build of Python, which Windows 11 emulates."
        )
    if machine.system == "Linux" and machine.architecture not in ("x86_64", "arm64"):
        return (
            f"PyTorch has no wheels for {machine.architecture}: install your distribution's "
            "PyTorch into .venv and run this again; a torch that works is kept."
        )
    if machine.libc is not None and machine.libc < (2, 28):
        return (
            "PyTorch's wheels need glibc 2.28 or newer (Debian 10, Ubuntu 20.04, RHEL 8), which "
            "Alpine and older systems don't have: use a container of a newer system."
        )

    return None


def _impossible_mac(machine: Machine) -> str | None:
    if machine.architecture != "arm64":
        return (
            "PyTorch stopped making wheels for Intel Macs after 2.2.2, which is too old for the "
            "studio's packages. "
            'What works: this project as a library (`pip install . "numpy<2"` with Python 3.10 '
            "to 3.12). If this "
            "Mac has Apple silicon, this Python is an Intel build: install the universal one."
        )
    if machine.macos is not None and machine.macos < 11:
        return "PyTorch needs macOS 11 or newer."
    return None


def choose(machine: Machine) -> Choice:
    """The torch for a machine for which :func:`impossible` returns ``None``."""
    if machine.system == "Darwin":
        return _for_mac(machine)
    if machine.driver is not None:
        return _for_nvidia(machine)
    if machine.amd and machine.system == "Linux" and machine.architecture == "x86_64":
        return from_index("rocm", "an AMD card that ROCm can open")
    if machine.intel and machine.architecture == "x86_64":
        return from_index("xpu", "an Intel Arc card")
    if machine.is_silent:
        return _cpu(
            machine,
            "nvidia-smi is there but finds no card: if there is one, install its driver again, "
            "then run the command with `--torch cu130`",
        )
    return _cpu(machine, "no card that PyTorch can use was found")


def asked(requested: str) -> Choice:
    """The torch that ``--torch`` names.

    Args:
        requested: a build's name, an index's address, a wheel or a folder of wheels.

    Raises:
        ValueError: it is none of these; the message lists them.
    """
    if requested == "pypi":
        return Choice("pypi", (f"torch=={PINNED}",), "you asked for PyPI's")
    if requested in BUILDS:
        return replace(from_index(requested, "you asked for it"), fallback=None)
    if requested.startswith(("http://", "https://", "file://")):
        return Choice(requested, ("torch", "--index-url", requested), "you gave an index")
    if requested.endswith(".whl"):
        return Choice(requested, (requested,), "you gave a wheel")
    if "/" in requested or "\\" in requested:
        return Choice(
            requested,
            ("torch", "--no-index", "--find-links", requested),
            "you gave a folder of wheels",
        )

    raise ValueError(
        f"--torch takes {', '.join(BUILDS)}, pypi, a wheel, a folder of wheels or an index's "
        f"address, not {requested!r}"
    )


def from_index(build: str, reason: str, version: str = PINNED) -> Choice:
    """A build from PyTorch's own index, with PyPI's wheel as the fallback."""
    if build == "cu128":  # newer releases have no wheels for it
        version = LAST_WITH_CUDA_12_8
    wanted = f"torch=={version}"
    return Choice(build, (wanted, "--index-url", WHEELS + BUILDS[build]), reason, (wanted,))


def _for_mac(machine: Machine) -> Choice:
    if machine.macos is not None and machine.macos < 14:
        reason = f"the last PyTorch for macOS {machine.macos}; {PINNED} needs macOS 14"
        return Choice("pypi", (f"torch=={LAST_FOR_MACOS_11}",), reason)
    return Choice("pypi", (f"torch=={PINNED}",), "Apple silicon: the same wheel serves CPU and GPU")


def _for_nvidia(machine: Machine) -> Choice:
    """The build for the best card; if one build covers the older cards too, that one."""
    driver = machine.driver or 0
    # PyTorch's wheels for Arm have kernels from 8.0 on.
    oldest_kernel = (8, 0) if machine.architecture == "arm64" else (5, 0)
    usable = [c for c in machine.capabilities if c >= oldest_kernel]

    if driver < (528 if machine.system == "Windows" else 525):
        return _cpu(
            machine, f"the NVIDIA driver {driver} is too old for PyTorch: update it to 580 or newer"
        )
    if machine.capabilities and not usable:
        return _cpu(machine, "PyTorch's CUDA wheels have no kernels for a card that old")
    if not usable:
        return from_index("cu126", "an NVIDIA card of unknown age; these wheels serve most")

    best = max(usable)
    card = f"an NVIDIA card of compute capability {best[0]}.{best[1]} and driver {driver}"
    if best >= (10, 0):
        if driver >= 580:
            return from_index("cu130", card)
        if driver >= 570:
            return from_index("cu128", f"{card}; a driver from 580 on would get PyTorch {PINNED}")
        return _cpu(machine, f"{card}: update the driver to 580 or newer to use it")
    if driver >= 580 and min(usable) >= (7, 5):
        return from_index("cu130", card)
    return from_index("cu126", card)


def _cpu(machine: Machine, reason: str) -> Choice:
    """The CPU build."""
    if machine.system == "Linux":  # PyPI's wheel has several gigabytes of CUDA there
        return from_index("cpu", reason)
    return Choice("pypi", (f"torch=={PINNED}",), reason)
