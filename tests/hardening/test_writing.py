"""Every file is written under a temporary name and moved into place: by the source, killed, and
with a full disk."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import hypernetworks as hn
from hypernetworks.errors import FileWriteError
from hypernetworks.files import writing
from hypernetworks.library import Library

ROOT = Path(__file__).parents[2]
WRITES = {
    "write_text",
    "write_bytes",
    "save",
    "save_file",
    "save_pretrained",
    "dump",
    "savez",
    "tofile",
    "symlink_to",
}
WRITES |= {
    "copy",
    "copy2",
    "copyfile",
    "copytree",
    "move",
    "mkstemp",
    "NamedTemporaryFile",
    "touch",
}
MODULES = {"shutil", "tempfile", "os", "np", "torch", "json", "pickle"}
KEPT_BY_OTHERS: dict[str, str] = {
    "hypernetworks/hosts/diffusers/checkpoints/clip_tokenizer.py build_tokenizer": "into a folder that is gone at once",
    "hypernetworks/studio/cards.py add_file": "a dropped file, under a temporary name of its own",
    "hypernetworks/ui/html.py data_url": "into memory",
    "hypernetworks/hosts/webui/training/running.py _train": "what the trainer prints, as it comes",
    "hypernetworks/hosts/webui/training/setting_up.py begin": "what the set-up prints",
    "hypernetworks/training/folders.py keep": (
        "into a temporary folder, which then takes its name whole"
    ),
    "hypernetworks/studio/web/live.py zipped": "that download",
    "hypernetworks/studio/train/sent_images.py to_keep": "into a folder that is gone at once",
    "hypernetworks/studio/web/live.py _register_gallery": "a download, in a temporary folder of the studio's own",
    "hypernetworks/studio/web/leftovers.py temporary_folder": "a lock without content, in a fresh folder",
    "hypernetworks/studio/web/leftovers.py _is_left": "that lock again: nothing is written",
    "hypernetworks/studio/web/bodies.py _headers_finished": (
        "an upload, in a fresh folder of the studio's own cache"
    ),
    "hypernetworks/training/locking.py _taken": "a lock without content: nothing is written",
    "hypernetworks/training/tensorboard.py _append": "events at the end of a log; readers skip half of one",
    "hypernetworks/training/records.py add": (
        "one line more at the end of a log; half of one can only be its last"
    ),
    "hypernetworks/miniature": "the tools that rebuild what ships; nobody's files are there",
    "hypernetworks/installing": (
        "marks in .venv; half of one counts as none, and a broken .venv is made again"
    ),
}
"""Writes that do without :func:`hypernetworks.files.writing.replace`, and why they may; or a whole
room."""


def writes(source: str) -> Iterator[tuple[str, str]]:
    """Function and source of every call that writes, unless what it writes is called
    ``temporary``.
    """
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and _writes(node):
                text = ast.unparse(node)
                if "temporary" not in text and "buffer" not in text:
                    yield function.name, text


def _writes(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("open", "fdopen", "ZipFile"):
        modes = [
            a.value
            for a in [*call.args, *(k.value for k in call.keywords)]
            if isinstance(a, ast.Constant)
        ]
        return any(
            isinstance(mode, str) and len(mode) < 4 and set(mode) & set("wax+") for mode in modes
        )
    if name in ("copy", "move", "dump", "save") and isinstance(call.func, ast.Attribute):
        return bool(call.args) and (name == "save" or ast.unparse(call.func.value) in MODULES)
    return name in WRITES


SOURCES = [
    *sorted((ROOT / "hypernetworks").rglob("*.py")),
    *sorted((ROOT / "scripts").rglob("*.py")),
    ROOT / "install.py",
]


def test_every_file_is_written_under_a_temporary_name() -> None:
    for path in SOURCES:
        relative = path.relative_to(ROOT).as_posix()
        if relative.startswith("hypernetworks/files/"):
            continue
        for function, call in writes(path.read_text(encoding="utf-8")):
            where = f"{relative} {function}"
            known = next(
                (key for key in KEPT_BY_OTHERS if where == key or relative.startswith(f"{key}/")),
                None,
            )
            assert known is not None, (
                f"{where}: {call} goes straight to its place: use files.writing.replace"
            )


@pytest.mark.parametrize(
    "source",
    [
        "path.write_text('x')", "open(path, 'w')", "path.open('ab')", "torch.save(x, path)", "image.save(path)",
        "np.save(path, x)", "json.dump(x, file)", "shutil.copy2(a, b)", "save_file(x, path)", "os.fdopen(d, mode='wb')",
        "zipfile.ZipFile(path, 'w')",
    ],
)  # fmt: skip
def test_writes_are_noticed(source: str) -> None:
    assert len(list(writes(f"def f():\n    {source}"))) == 1


@pytest.mark.parametrize(
    "source", ["open(path)", "path.open('rb')", "text.replace('a', 'b')", "values.copy()"]
)
def test_other_calls_are_let_pass(source: str) -> None:
    assert list(writes(f"def f():\n    {source}")) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_in_the_middle() -> None:
    command = [sys.executable, "-m", "tests.hardening.killed", "--kills", "12"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4


FULL = """
import sys, resource
sys.path[:0] = sys.argv[2:]
from contextlib import suppress
from pathlib import Path
from hardening.killed import WRITES, _network, _read
from hypernetworks.errors import FileWriteError

folder, unlimited = Path(sys.argv[1]), resource.getrlimit(resource.RLIMIT_FSIZE)
for kind, (name, write) in WRITES.items():
    write(folder, 0, _network(0))
    before, other = _read(folder / name), _network(1)
    if folder.is_mount():
        with suppress(OSError), (folder / "filling").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, unlimited[1]))
    try:
        write(folder, 1, other)
        print(kind, "no error")
    except FileWriteError as error:
        print(kind, error)
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    (folder / "filling").unlink(missing_ok=True)
    assert _read(folder / name) == before, "the old file is another"
    assert [item.name for item in folder.iterdir()] == [name], list(folder.iterdir())
    (folder / name).unlink()
"""


@pytest.fixture(params=["a limit", "a small disk"])
def full_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder that takes no more: by the limit on a file's size, or on a disk of its own, where
    that is allowed."""
    if sys.platform != "linux":
        pytest.skip("limits of Linux")
    if request.param == "a limit":
        yield tmp_path
        return
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(tmp_path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting needs root")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk(full_disk: Path) -> None:
    command = [sys.executable, "-c", FULL, str(full_disk), str(ROOT / "tests"), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert "can't be written" in line
        assert any(said in line for said in ("too large", "No space", "disk is full"))


def test_what_killed_writers_left_goes_after_a_day(tmp_path: Path) -> None:
    names = [".writing-0123456789abcdef.tmp", ".writing-ab_cd12x.tmp", ".adding-ab_cd12x.tmp"]
    kept = [
        ".writing-notes.tmp",
        ".writing-0123456789abcdef.pt",
        "writing-0123456789abcdef.tmp",
        "x.writing-01234567.tmp",
    ]
    for name in [*names, *kept]:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".writing-0000000000000000.tmp").mkdir()
    (tmp_path / ".writing-1111111111111111.tmp").symlink_to(tmp_path / "nowhere")
    before = set(os.listdir(tmp_path))
    writing.replace(tmp_path / "a.txt", lambda temporary: temporary.write_text("whole"))
    assert set(os.listdir(tmp_path)) == before | {"a.txt"}, (
        "they may be somebody's who is still writing"
    )
    for name in [*names, *kept, ".writing-0000000000000000.tmp"]:
        os.utime(tmp_path / name, (time.time() - writing.STALE - 60,) * 2)
    writing.replace(tmp_path / "a.txt", lambda temporary: temporary.write_text("again"))
    assert set(os.listdir(tmp_path)) == (before | {"a.txt"}) - set(names)
    assert Library([tmp_path]).scan() == ()


def test_modes_and_masks_are_kept(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        writing.replace(tmp_path / "new", lambda temporary: temporary.write_text("a"))
        (tmp_path / "old").touch(0o600)
        seen = []
        writing.replace(
            tmp_path / "old", lambda temporary: seen.append(temporary.stat().st_mode & 0o777)
        )
        (tmp_path / "shared").touch()
        (tmp_path / "shared").chmod(0o664)
        writing.replace(tmp_path / "shared", lambda temporary: temporary.write_text("a"))
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    if os.name == "posix":
        modes = {item.name: item.stat().st_mode & 0o777 for item in tmp_path.iterdir()}
        assert modes == {"new": 0o640, "old": 0o600, "shared": 0o664}
        assert seen == [0o600], "nobody else can look at a private file while it is written"


def test_a_writing_librarys_own_errors_are_translated_and_others_are_not(tmp_path: Path) -> None:
    def full(_: Path) -> None:
        raise RuntimeError("unexpected pos 64 vs 0") from OSError(28, "No space left on device")

    def buggy(_: Path) -> None:
        raise RuntimeError("a mistake")

    with pytest.raises(FileWriteError, match="No space left"):
        writing.replace(tmp_path / "a", full)
    with pytest.raises(RuntimeError, match="mistake"):
        writing.replace(tmp_path / "a", buggy)
    assert list(tmp_path.iterdir()) == []


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    network = hn.Hypernetwork.create("a", hn.Structure(), (8, 16))
    network.pairs[8][0].to(torch.float16)
    for suffix in (".safetensors", ".pt"):
        written = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            hn.write(network, tmp_path / name / f"net{suffix}")
            written.append((tmp_path / name / f"net{suffix}").read_bytes())
        assert written[0] == written[1]
