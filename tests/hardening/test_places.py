"""Where files are: pipes and devices, links and loops, folders without permission, names of all
kinds, moving files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from reference import Recipe
from unit.files.containers import save_legacy, save_safetensors, save_zip

import hypernetworks as hn
from hypernetworks import cli
from hypernetworks.errors import (
    FileCorruptError,
    FileMissingError,
    FileUnreadableError,
    FileWriteError,
    HypernetworkError,
    NotAHypernetworkError,
)
from hypernetworks.files import SUFFIXES
from hypernetworks.library import Library

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="pipes, devices and permissions of POSIX"
)
ROOT = Path(__file__).parents[2]
SAVERS = {"net.pt": save_zip, "net.ckpt": save_legacy, "net.safetensors": save_safetensors}


def socket_at(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(
            f"/proc/self/fd/{folder}/{path.name}"
        )  # the name of a socket may have no more than 107 characters
    os.close(folder)


PLACES = {
    "pipe": os.mkfifo,
    "socket": socket_at,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "null device": lambda path: path.symlink_to("/dev/null"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "link to nothing": lambda path: path.symlink_to(path.with_name("nothing")),
    "link to itself": lambda path: path.symlink_to(path),
    "link to the folder": lambda path: path.symlink_to(path.parent),
    "folder": lambda path: path.mkdir(),
    "file of the system": lambda path: path.symlink_to("/proc/self/status"),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_is_neither_waited_for_nor_listed(
    place: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"net{suffix}"
    PLACES[place](path)
    with pytest.raises(HypernetworkError) as caught:
        hn.read(path)
    unlike = {"link to nothing": FileMissingError, "file of the system": NotAHypernetworkError}
    assert type(caught.value) is unlike.get(place, FileUnreadableError)
    assert cli.main(["inspect", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    if place != "file of the system":
        assert Library([tmp_path]).scan() == ()


def test_a_pipe_that_takes_a_files_place_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.pt"
    os.mkfifo(path)
    regular = Path(__file__).stat()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", lambda *_, **__: regular)  # so it was when it was asked
        with pytest.raises(FileUnreadableError, match="pipe"):
            hn.read(path)


def test_circles_of_links_are_walked_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    save_zip(Recipe().content(), tmp_path / "a" / "b" / "net.pt")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "c").symlink_to(tmp_path / "a" / "b")
    (tmp_path / "x").symlink_to(tmp_path / "y")
    (tmp_path / "y").symlink_to(tmp_path / "x")
    names = [entry.full_name for entry in Library([tmp_path]).scan()]
    assert [name for name in names if name.endswith("net")] == names != []
    assert len(names) <= 2


@contextmanager
def somebody() -> Iterator[None]:
    """Without the rights of root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that anyone can reach, which those of pytest are not."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_folders_and_files_without_permission(open_folder: Path) -> None:
    closed, file = open_folder / "closed", open_folder / "net.pt"
    closed.mkdir()
    save_zip(Recipe().content(), closed / "inside.pt")
    save_zip(Recipe().content(), file)
    network = hn.read(file)
    try:
        with somebody():
            assert [e.name for e in Library([open_folder]).scan()] == ["inside", "net"]
        closed.chmod(0)
        file.chmod(0)
        with somebody():
            assert [e.name for e in Library([open_folder]).scan()] == ["net"]
            for path in (file, closed / "inside.pt"):
                with pytest.raises(FileUnreadableError, match="denied"):
                    hn.read(path)
            with pytest.raises(FileWriteError, match="denied"):
                hn.write(network, closed / "new.pt")
        closed.chmod(0o555)
        with somebody(), pytest.raises(FileWriteError):
            hn.write(network, closed / "inside.pt")
        assert [item.name for item in closed.iterdir()] == ["inside.pt"]
    finally:
        closed.chmod(0o755)


NAMES = [
    "墨",
    "тушь",
    "حبر",
    "दवात",
    "🖋️",
    "e\u0301",
    "a b  c",
    "\u202egnp",
    "a\nb",
    "a\x1b[31mb",
    "a\tb",
    "'\"",
    "%s{0}",
]
NAMES += [
    "-rf",
    "CON",
    "a:b",
    "<b>x",
    "\x7f",
    "\u200b",
    "\ud800"[:0] + "a\udcff\udc80",
    "x" * 240,
    "a\\b",
    "*?",
]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", NAMES)
def test_names_of_every_kind(
    name: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    healthy, path = (
        hn.read(save_zip(Recipe().content(), tmp_path / "healthy.pt")),
        tmp_path / f"{name}{suffix}",
    )
    hn.write(healthy, path)
    assert hn.read(path).widths == (8,)
    assert sorted(os.listdir(tmp_path)) == sorted(["healthy.pt", path.name])
    library = Library([tmp_path])
    assert {entry.path for entry in library.scan()} == {path, tmp_path / "healthy.pt"}
    for entry in library.entries:
        library.load(entry)
    path.write_bytes(b"no network")
    with pytest.raises(HypernetworkError) as caught:
        hn.read(path)
    assert str(caught.value).isprintable()
    path.unlink()
    for error in (FileMissingError, FileWriteError):
        with pytest.raises(error) as caught:
            hn.read(path) if error is FileMissingError else hn.write(healthy, path / "below.pt")
        assert str(caught.value).isprintable()
    if not set("*?[") & set(name):  # else it is a pattern, which the healthy file fits
        assert cli.main(["inspect", str(path)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


MAPPED = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    numbers = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
print("ready", flush=True)
sys.stdin.readline()
print(sum(numbers[::4096]), flush=True)
"""
READ = """
import sys
sys.path.insert(0, sys.argv.pop())
import hypernetworks as hn
networks = [hn.read(path) for path in sys.argv[1:]]
total = lambda: sum(float(p.double().sum()) for network in networks for p in network.parameters())
first = total()
print("ready", flush=True)
sys.stdin.readline()
print(total() == first, flush=True)
"""


def held(script: str, *arguments: Path) -> tuple[int, str]:
    """Exit code and last line of a process that holds files which are cut short meanwhile."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for path in arguments:
            if path.is_file():
                os.truncate(path, 100)
        output, _ = process.communicate("go\n")
    return process.returncode, output.strip()


@pytest.mark.skipif(
    sys.platform != "linux",
    reason="other systems don't cut files that are mapped, or not like this",
)
def test_a_file_cut_short_underneath_costs_nothing(tmp_path: Path) -> None:
    mapped = save_zip(Recipe((64,)).content(), tmp_path / "mapped.pt")
    assert held(MAPPED, mapped) == (-7, ""), "that is what a mapping does: SIGBUS"
    paths = [save(Recipe((64,)).content(), tmp_path / name) for name, save in SAVERS.items()]
    assert held(READ, *paths, ROOT) == (0, "True")


@pytest.mark.parametrize("name", SAVERS)
def test_a_file_that_is_written_into_while_it_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hypernetworks.files.opened import OpenedFile

    path, fill = SAVERS[name](Recipe((64,)).content(), tmp_path / name), OpenedFile._fill
    content = path.read_bytes()

    def changes(change: object) -> object:
        def filled(self: OpenedFile, offset: int, target: memoryview) -> None:
            change()  # type: ignore[operator]
            fill(self, offset, target)

        return filled

    def grow() -> None:
        with path.open("ab") as file:
            file.write(b"more")

    for change, said in ((lambda: os.truncate(path, 300), "shorter"), (grow, "changed")):
        path.write_bytes(content)
        with monkeypatch.context() as patch:
            patch.setattr(OpenedFile, "_fill", changes(change))
            with pytest.raises(FileCorruptError, match=said):
                hn.read(path)
    path.write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(OpenedFile, "_fill", changes(lambda: path.unlink(missing_ok=True)))
        assert hn.read(path).widths == (64,), "who has opened it, has it"


def test_a_folder_that_changes_while_it_is_walked(tmp_path: Path) -> None:
    save_zip(Recipe().content(), tmp_path / "kept.pt")
    ending = threading.Event()

    def come_and_go() -> None:
        number = 0
        while not ending.is_set():
            number += 1
            folder = tmp_path / f"sub{number % 7}"
            folder.mkdir(exist_ok=True)
            (folder / "net.pt").write_bytes(b"")
            (folder / "net.pt").unlink()
            folder.rmdir()

    changing = threading.Thread(target=come_and_go)
    changing.start()
    try:
        for _ in range(60):
            assert "kept" in [entry.name for entry in Library([tmp_path]).scan()]
    finally:
        ending.set()
        changing.join()
