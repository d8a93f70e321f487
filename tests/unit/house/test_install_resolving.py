"""Whether every Python, system and card gets wheels, and which: pip and uv are asked, nothing is
installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from hypernetworks.installing import packages
from hypernetworks.installing.wheels import WHEELS, Choice, Machine, choose

ROOT = Path(__file__).parents[3]
WINDOWS, LINUX = (
    Machine("Windows", "x86_64", driver=580),
    Machine("Linux", "x86_64", driver=580, libc=(2, 36)),
)
PLATFORMS = {"Windows": "win_amd64", "Linux": "manylinux_2_28_x86_64"}
CARDS = {
    "GTX 1080": ((6, 1), 580, "2.13.0+cu126"),
    "RTX 4090, old driver": ((8, 9), 566, "2.13.0+cu126"),
    "RTX 4090": ((8, 9), 580, "2.13.0+cu130"),
    "RTX 5090, old driver": ((12, 0), 572, "2.11.0+cu128"),
}
"""Compute capability, driver, and what has to come."""


def chosen_for(system: str, card: str, minor: int) -> Choice:
    capability, driver, _ = CARDS[card]
    machine = WINDOWS if system == "Windows" else LINUX
    return choose(
        Machine(
            machine.system,
            machine.architecture,
            (3, minor),
            driver,
            (capability,),
            libc=machine.libc,
        )
    )


def wheel(system: str, card: str, minor: int) -> str:
    """The name of the one right wheel."""
    return f"torch-{CARDS[card][2]}-cp3{minor}-cp3{minor}-{PLATFORMS[system]}.whl"


def dry_run(folder: Path, pip: tuple[str, ...], system: str, minor: int) -> str:
    """The name of the wheel that pip would install there; only its metadata is downloaded."""
    where = [
        *("--python-version", f"3.{minor}", "--implementation", "cp", "--abi", f"cp3{minor}"),
        *("--platform", PLATFORMS[system], "--only-binary", ":all:", "--no-deps"),
    ]
    report = folder / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--dry-run"),
            *("--ignore-installed", "--target", str(folder / "nothing"), "--report", str(report)),
            *where,
            *pip,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(report.read_text(encoding="utf-8"))["install"]
    name = found["download_info"]["url"].rpartition("/")[2].replace("%2B", "+")
    assert isinstance(name, str)
    return name


def index_of(folder: Path) -> str:
    """An index that is laid out as PyTorch's is, with the wheels that it has and some that mislead;
    gives its address.
    """
    versions = {
        "cu126": ("2.12.0", "2.13.0", "2.14.0"),
        "cu128": ("2.10.0", "2.11.0"),
        "cu130": ("2.12.0", "2.13.0", "2.14.0"),
    }
    for build, numbers in versions.items():
        links = []
        (folder / build / "torch").mkdir(parents=True)
        for version in numbers:
            for minor in (10, 12, 14):
                for platform in (*PLATFORMS.values(), "manylinux_2_28_aarch64"):
                    name = f"torch-{version}+{build}-cp3{minor}-cp3{minor}-{platform}.whl"
                    _write_wheel(folder / build / "torch" / name, f"{version}+{build}")
                    links.append(f'<a href="{name.replace("+", "%2B")}">{name}</a>')
        page = "<!DOCTYPE html><html><body>" + "\n".join(links) + "</body></html>"
        (folder / build / "torch" / "index.html").write_text(page, encoding="utf-8")
    return folder.as_uri() + "/"


def _write_wheel(path: Path, version: str) -> None:
    """Only what pip reads of it."""
    with zipfile.ZipFile(path, "w") as file:
        about = f"torch-{version}.dist-info"
        file.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"
        )
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n")
        file.writestr(f"{about}/RECORD", "")


def test_pip_takes_the_cuda_wheel_from_an_index_like_pytorchs(tmp_path: Path) -> None:
    """Without a network: the wheels beside it are those of other versions, builds and systems."""
    if find_spec("pip") is None:
        pytest.skip("needs pip")
    index, choice = index_of(tmp_path / "index"), chosen_for("Windows", "RTX 4090", 12)
    arguments = tuple(part.replace(WHEELS, index) for part in choice.pip)
    assert arguments != choice.pip
    assert dry_run(tmp_path, arguments, "Windows", 12) == wheel("Windows", "RTX 4090", 12)


@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.parametrize("card", list(CARDS))
@pytest.mark.parametrize("system", list(PLATFORMS))
@pytest.mark.parametrize("minor", range(10, 15))
def test_pip_takes_the_cuda_wheel_from_pytorchs_index(
    tmp_path: Path, system: str, card: str, minor: int
) -> None:
    """The real thing: ``pip install --dry-run`` with the arguments that ``install.py`` uses."""
    host = WHEELS.split("/")[2]
    if not packages.reachable(host):
        pytest.skip(f"{host} can't be reached from here")
    choice = chosen_for(system, card, minor)
    assert dry_run(tmp_path, choice.pip, system, minor) == wheel(system, card, minor)


@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.parametrize("system", ["windows", "aarch64-apple-darwin", "x86_64-manylinux_2_28"])
@pytest.mark.parametrize("minor", range(10, 15))
def test_everything_has_wheels(system: str, minor: int) -> None:
    """By uv: ``pip install --dry-run --platform`` reads markers by the Python that runs it.

    On Linux, pip would look for torch's CUDA packages on Windows, too.
    """
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv")
    options = ["--quiet", "--only-binary", ":all:", "--extra", "studio", "-c", "constraints.txt"]
    where = ["--python-version", f"3.{minor}", "--python-platform", system]
    done = subprocess.run(
        [uv, "pip", "compile", *options, *where, "pyproject.toml"],
        cwd=ROOT,
        env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=290,
    )
    assert done.returncode == 0, done.stderr
    assert "torch==2.13.0" in done.stdout
