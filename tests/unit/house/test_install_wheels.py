"""The table that decides which torch a machine gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hypernetworks.installing.machine import has_arc, parse_nvidia
from hypernetworks.installing.wheels import BUILDS, PINNED, Machine, asked, choose, impossible

WINDOWS = Machine("Windows", "x86_64")
LINUX = Machine("Linux", "x86_64", libc=(2, 36))
ARM = Machine("Linux", "arm64", libc=(2, 36))
MAC = Machine("Darwin", "arm64", macos=15)
GTX_970, GTX_1080, V100, RTX_2080, RTX_4090, RTX_5090 = (
    (5, 2),
    (6, 1),
    (7, 0),
    (7, 5),
    (8, 9),
    (12, 0),
)


@pytest.mark.parametrize(
    ("machine", "build"),
    [
        (replace(WINDOWS, driver=580, capabilities=(RTX_4090,)), "cu130"),
        (replace(LINUX, driver=580, capabilities=(RTX_2080,)), "cu130"),
        (replace(WINDOWS, driver=566, capabilities=(RTX_4090,)), "cu126"),
        (replace(WINDOWS, driver=580, capabilities=(GTX_1080,)), "cu126"),
        (replace(LINUX, driver=580, capabilities=(V100,)), "cu126"),
        (replace(LINUX, driver=535, capabilities=(GTX_970,)), "cu126"),
        (replace(LINUX, driver=580, capabilities=(GTX_1080, RTX_4090)), "cu126"),
        (replace(LINUX, driver=580, capabilities=(GTX_1080, RTX_5090)), "cu130"),
        (replace(WINDOWS, driver=580, capabilities=(RTX_5090,)), "cu130"),
        (replace(WINDOWS, driver=572, capabilities=(RTX_5090,)), "cu128"),
        (replace(WINDOWS, driver=560, capabilities=(RTX_5090,)), "pypi"),
        (replace(WINDOWS, driver=527, capabilities=(RTX_4090,)), "pypi"),
        (replace(LINUX, driver=527, capabilities=(RTX_4090,)), "cu126"),
        (replace(LINUX, driver=470, capabilities=((3, 5),)), "cpu"),
        (replace(LINUX, driver=570, capabilities=((3, 5),)), "cpu"),
        (replace(LINUX, driver=550, capabilities=()), "cu126"),
        (replace(ARM, driver=580, capabilities=((9, 0),)), "cu130"),
        (replace(ARM, driver=580, capabilities=((7, 2),)), "cpu"),
        (replace(LINUX, amd=True), "rocm"),
        (replace(WINDOWS, amd=True), "pypi"),
        (replace(ARM, amd=True), "cpu"),
        (replace(WINDOWS, intel=True), "xpu"),
        (replace(LINUX, intel=True), "xpu"),
        (LINUX, "cpu"),
        (ARM, "cpu"),
        (WINDOWS, "pypi"),
        (MAC, "pypi"),
        (replace(MAC, macos=13), "pypi"),
    ],
)
@pytest.mark.parametrize("python", [(3, minor) for minor in range(10, 15)])
def test_the_build(machine: Machine, build: str, python: tuple[int, int]) -> None:
    machine = replace(machine, python=python)
    assert impossible(machine) is None
    assert choose(machine).build == build


def test_a_windows_user_with_a_card_gets_a_cuda_build() -> None:
    choice = choose(replace(WINDOWS, driver=581, capabilities=(RTX_4090,)))
    assert choice.pip == (
        f"torch=={PINNED}",
        "--index-url",
        "https://download.pytorch.org/whl/cu130",
    )
    assert choice.fallback == (f"torch=={PINNED}",)


def test_old_and_new_corners_get_the_last_torch_that_serves_them() -> None:
    assert choose(replace(MAC, macos=13)).pip == ("torch==2.11.0",)
    assert choose(replace(WINDOWS, driver=572, capabilities=(RTX_5090,))).pip[0] == "torch==2.11.0"
    assert choose(MAC).pip == (f"torch=={PINNED}",)


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (replace(WINDOWS, python=(3, 9)), "3.10 to 3.14"),
        (replace(WINDOWS, python=(3, 15)), "3.10 to 3.14"),
        (replace(WINDOWS, python=(3, 15)), "py -3.12 install.py"),
        (replace(WINDOWS, bits=32), "64-bit"),
        (replace(LINUX, free_threaded=True), "free-threaded"),
        (replace(MAC, architecture="x86_64"), "Intel Macs"),
        (replace(MAC, macos=10), "macOS 11"),
        (replace(WINDOWS, architecture="arm64"), "x64"),
        (replace(LINUX, architecture="riscv64"), "riscv64"),
        (replace(LINUX, libc=(0, 0)), "glibc"),
        (replace(LINUX, libc=(2, 17)), "glibc"),
    ],
)
def test_what_has_no_wheels_is_said(machine: Machine, reason: str) -> None:
    assert reason in str(impossible(machine))


def test_a_driver_that_does_not_answer_is_said() -> None:
    """Not that there is no card: its driver may be broken, as after an update of the kernel."""
    silent = choose(replace(LINUX, is_silent=True))
    assert silent.build == "cpu"
    assert "install its driver again" in silent.reason
    assert choose(replace(LINUX, is_silent=True, amd=True)).build == "rocm"


@pytest.mark.parametrize("build", BUILDS)
def test_a_build_can_be_asked_for(build: str) -> None:
    choice = asked(build)
    assert choice.pip[1:] == ("--index-url", f"https://download.pytorch.org/whl/{BUILDS[build]}")
    assert choice.fallback is None  # who asks for one does not want another


def test_paths_and_indexes_can_be_asked_for() -> None:
    assert asked("https://mirror.example/simple").pip[-2:] == (
        "--index-url",
        "https://mirror.example/simple",
    )
    assert asked("C:\\wheels\\torch-2.13.0-cp312-cp312-win_amd64.whl").pip[0].endswith(".whl")
    assert asked("/opt/wheels").pip == ("torch", "--no-index", "--find-links", "/opt/wheels")
    with pytest.raises(ValueError, match="cu130"):
        asked("cuda")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("580.95.05, 8.9\n", (580, ((8, 9),))),
        ("572.16, 12.0\n572.16, 6.1\n", (572, ((12, 0), (6, 1)))),
        ("470.256.02\n", (470, ())),
        ("550.54.14, [N/A]\n", (550, ())),
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
            (None, ()),
        ),
        ("", (None, ())),
    ],
)
def test_what_nvidia_smi_prints(text: str, found: object) -> None:
    assert parse_nvidia(text) == found


@pytest.mark.parametrize(
    ("vendor", "device", "found"),
    [
        ("0x8086", "0x56a0", True),  # Arc A770
        ("0x8086", "0xe20b", True),  # Arc B580
        ("0x8086", "0x9a49", False),  # Iris Xe of an 11th generation laptop
        ("0x10de", "0x5678", False),
    ],
)
def test_arc_cards(tmp_path: Path, vendor: str, device: str, found: bool) -> None:
    folder = tmp_path / "card0" / "device"
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(vendor + "\n")
    (folder / "device").write_text(device + "\n")
    assert has_arc("Linux", tmp_path) is found
