"""What is left when a conversion fails: a clear error, and everything that was there before."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conversion_cases import checkpoint, network, small_unet

import hypernetworks as hn
from hypernetworks.cli import main
from hypernetworks.conversion import (
    Base,
    Weighted,
    bake,
    extracting,
    lora,
    lora_files,
    merging,
    to_lora,
)
from hypernetworks.conversion import weighted as weighted_module
from hypernetworks.errors import FileWriteError, HypernetworkError, NoMatchingWidthError
from hypernetworks.files import writing

FULL_DISK = OSError(errno.ENOSPC, "No space left on device")
NO_MEMORY = RuntimeError("DefaultCPUAllocator: not enough memory")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("base") / "small.safetensors", small_unet())


def failing(failure: BaseException, at: int = 3) -> Callable[..., Any]:
    """Something that fails when it is called for the third time."""
    calls = []

    def fail(*arguments: object, **_options: object) -> torch.Tensor:
        calls.append(arguments)
        if len(calls) >= at:
            raise failure
        return torch.zeros(1)

    return fail


@pytest.mark.parametrize(
    ("module", "name", "failure", "error", "said"),
    [
        (lora, "narrowed", MemoryError(), HypernetworkError, "not enough memory for the LoRA"),
        (lora, "narrowed", NO_MEMORY, HypernetworkError, "choose a lower --rank"),
        (lora, "narrowed", KeyboardInterrupt(), KeyboardInterrupt, "^$"),
        (lora_files, "save_flat", FULL_DISK, FileWriteError, "No space left"),
    ],
)
def test_a_lora_appears_whole_or_not_at_all(
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
    failure: BaseException,
    error: type[BaseException],
    said: str,
) -> None:
    target = tmp_path / "style.safetensors"
    target.write_bytes(b"what was there")
    monkeypatch.setattr(module, name, failing(failure, 1))
    with Base(base) as opened, pytest.raises(error, match=said):
        to_lora(opened, [Weighted(network("style", 1))], target)
    assert target.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [target]


def test_too_little_memory_for_a_network_is_said(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Base(base) as opened:
        to_lora(opened, [Weighted(network("style", 1))], tmp_path / "style.safetensors")
        monkeypatch.setattr(extracting.Sums, "add", failing(MemoryError()))
        with pytest.raises(HypernetworkError, match="not enough memory to extract"):
            extracting.from_lora("x", tmp_path / "style.safetensors", opened)
    monkeypatch.setattr(merging, "difference", failing(NO_MEMORY, 1))
    with pytest.raises(HypernetworkError, match="not enough memory to merge"):
        merging.merge("x", [Weighted(network("style", 1))])


@pytest.mark.parametrize("widths", [(768, 12), (2048,)])
def test_a_network_of_another_family_is_refused_by_all(
    base: Path, tmp_path: Path, widths: tuple[int, ...]
) -> None:
    other = Weighted(network("style", 1, hn.Structure((1, 1), dropout=(0, 0)), widths))
    with Base(base) as opened:
        for act in (to_lora, bake):
            with pytest.raises(NoMatchingWidthError, match="style"):
                act(opened, [other], tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_folders_left_by_killed_processes_go_after_a_day(tmp_path: Path) -> None:
    from hypernetworks.conversion.baking import _sweep

    for name, age in (("old", 90_000), ("new", 100)):
        folder = tmp_path / f".baking-{name}.tmp"
        (folder / "unet").mkdir(parents=True)
        (folder / "unet" / "weights").write_bytes(b"x")
        os.utime(folder, (time.time() - age,) * 2)
    (tmp_path / "mine").mkdir()
    _sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".baking-new.tmp", "mine"]


@pytest.fixture(scope="module")
def things(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whatever the commands read, in one folder."""
    folder = tmp_path_factory.mktemp("things")
    for number, name in enumerate(("a", "b")):
        hn.write(network(name, number), folder / f"{name}.pt")
    narrow = hn.Structure((1, 0.01, 1))
    hn.write(network("other", 1, narrow, (2048, 320)), folder / "other.pt")
    shutil.copy(base, folder / "base.safetensors")
    with Base(base) as opened:
        to_lora(opened, [Weighted(network("a", 0))], folder / "lora.safetensors")
        bake(opened, [Weighted(network("a", 0))], folder / "tuned.safetensors")
    return folder


COMMANDS = {
    "lora": "convert NETWORK OUT --to lora --base BASE --overwrite",
    "bake": "bake BASE NETWORK -o OUT --overwrite",
    "merge": "merge NETWORK b.pt -o OUT --overwrite",
    "resize": "resize NETWORK --hidden 0.5 -o OUT --overwrite",
    "extract": "extract --from-lora lora.safetensors --base BASE -o OUT --overwrite",
    "compare": "extract --from-checkpoints tuned.safetensors BASE -o OUT --overwrite",
}


def states(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file: reading all their bytes would take most of a test's time."""
    found = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in found.items()}


def refused(
    things: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    base: str = "base.safetensors",
    name: str = "a.pt",
) -> str:
    """What a command says that fails: everything is as before, whatever the reason."""
    target = folder / "out.safetensors"
    target.write_bytes(b"what was there")
    before = states(things)
    words = {"NETWORK": str(things / name), "BASE": str(things / base), "OUT": str(target)}
    given = [words.get(w, str(things / w) if "." in w else w) for w in COMMANDS[command].split()]
    given = [text if text != str(things / "0.5") else "0.5" for text in given]

    assert main(given) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert target.read_bytes() == b"what was there"
    assert list(folder.iterdir()) == [target]
    assert states(things) == before
    return said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_loses_nothing(
    things: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "_flush", full)
    assert "No space left" in refused(things, tmp_path, capsys, command)


@pytest.mark.parametrize("command", COMMANDS)
def test_too_little_memory_loses_nothing(
    things: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    for owner, name in (
        (weighted_module.LinearChanges, "product"),
        (merging, "difference"),
        (extracting.Sums, "add"),
    ):
        monkeypatch.setattr(owner, name, failing(MemoryError(), 1))
    assert "not enough memory" in refused(things, tmp_path, capsys, command)


@pytest.mark.parametrize("command", ["lora", "bake", "extract", "compare"])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [("none.safetensors", "no such file"), ("lora.safetensors", "LoRA"), ("a.pt", "pickle")],
)
def test_a_wrong_base_is_named(
    things: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    wrong: str,
    said: str,
) -> None:
    assert said in refused(things, tmp_path, capsys, command, base=wrong)


@pytest.mark.parametrize("command", ["lora", "bake"])
def test_a_network_of_another_family_is_named(
    things: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert "other" in refused(things, tmp_path, capsys, command, name="other.pt")


KILLED = """
import os, sys
from pathlib import Path
from hypernetworks.conversion import Base, Weighted, bake
from hypernetworks.files import read
things, target = map(Path, sys.argv[1:])
def die(done, total):
    if done > total / 2: os._exit(9)  # as if it was killed: nothing is tidied up
with Base(things / "base.safetensors") as base:
    bake(base, [Weighted(read(things / "a.pt"))], target, on_progress=die)
"""


def test_a_process_that_is_killed_loses_nothing(things: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"what was there")
    before = (things / "base.safetensors").read_bytes()
    root = str(Path(__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(things), str(target)], env=environment, check=False
    )
    assert done.returncode == 9
    assert target.read_bytes() == b"what was there"
    assert (things / "base.safetensors").read_bytes() == before

    # What it has left behind goes with a later conversion.
    (left,) = (path for path in tmp_path.iterdir() if path != target)
    os.utime(left, (time.time() - 90_000,) * 2)
    with Base(things / "base.safetensors") as opened:
        bake(opened, [Weighted(network("a", 0))], target)
    assert list(tmp_path.iterdir()) == [target]
