"""Files that other programs hold: Windows refuses to replace them for a while, and a run must not
end over it."""

from __future__ import annotations

import ast
import errno
import os
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit" / "training"))

from toys import Toy, same, toy_settings  # noqa: E402

from hypernetworks.errors import DivergenceError, FileWriteError, TrainingSettingsError  # noqa: E402
from hypernetworks.files import moving, naming, writing  # noqa: E402
from hypernetworks.training import train  # noqa: E402
from hypernetworks.training.checkpoints import saved_networks  # noqa: E402
from hypernetworks.training.creation import check_name  # noqa: E402

Refusing = Callable[..., list[float]]


def refusal(path: object, winerror: int = 32) -> OSError:
    """How Windows says that another program has the file."""
    error = PermissionError(errno.EACCES, "The process cannot access the file", str(path))
    error.winerror = winerror  # type: ignore[attr-defined]
    return error


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refusing:
    """Moves onto some files are refused so many times; gives the pauses that were made, none of
    them real."""

    def begin(
        times: int, error: Callable[[Path], OSError] = refusal, *, suffix: str = ""
    ) -> list[float]:
        original, left, pauses = Path.replace, [times], list[float]()

        def replace(self: Path, target: Any) -> Path:
            if left[0] and str(target).endswith(suffix):
                left[0] -= 1
                raise error(self)
            return original(self, target)

        monkeypatch.setattr(Path, "replace", replace)
        monkeypatch.setattr(moving.time, "sleep", pauses.append)
        return pauses

    return begin


def text(words: str) -> Callable[[Path], object]:
    return lambda temporary: temporary.write_text(words)


@pytest.mark.parametrize("winerror", [5, 32, 33])
def test_a_move_that_is_refused_twenty_times_costs_time_and_nothing_else(
    refuse: Refusing, tmp_path: Path, winerror: int
) -> None:
    (tmp_path / "a").write_text("old")
    pauses = refuse(20, lambda path: refusal(path, winerror))
    writing.replace(tmp_path / "a", text("new"))
    assert (tmp_path / "a").read_text() == "new"
    assert os.listdir(tmp_path) == ["a"]
    assert len(pauses) == 20
    assert sum(pauses) < 3


def test_one_that_stays_refused_says_so_and_leaves_nothing(
    refuse: Refusing, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("old")
    pauses = refuse(10**6)
    with pytest.raises(FileWriteError, match="open in another program"):
        writing.replace(tmp_path / "a", text("new"))
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]
    assert 2 < sum(pauses) < 3


def test_a_full_disk_is_not_waited_for_and_says_how_much_is_free(
    refuse: Refusing, tmp_path: Path
) -> None:
    pauses = refuse(10**6, lambda _: OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(FileWriteError, match=r"No space left on device: [\d,.]+ MB are free"):
        writing.replace(tmp_path / "a", text("new"))
    assert pauses == []
    assert os.listdir(tmp_path) == []


def test_a_temporary_file_that_stays_hides_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unlink(self: Path, missing_ok: bool = False) -> None:
        raise refusal(self)

    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr(moving.time, "sleep", lambda _: None)

    def broken(_: Path) -> None:
        raise OSError(errno.EIO, "the first error")

    with pytest.raises(FileWriteError, match="the first error"):
        writing.replace(tmp_path / "a", broken)


def test_the_mode_is_set_after_the_move_and_may_be_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On Windows a read-only file can't be moved over another one; network drives know no modes."""
    (tmp_path / "a").write_text("old")
    moved: list[bool] = []

    def chmod(self: Path, mode: int) -> None:
        moved.append((tmp_path / "a").read_text() == "new")
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", chmod)
    writing.replace(tmp_path / "a", text("new"))
    assert moved == [True]
    assert os.listdir(tmp_path) == ["a"]


def test_a_drive_that_cannot_flush_takes_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    writing.replace(tmp_path / "a", text("new"))
    assert (tmp_path / "a").read_text() == "new"


def test_what_is_taken_is_not_replaced_with_and_without_links(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    for link in (os.link, no_links):
        monkeypatch.setattr(os, "link", link)
        (tmp_path / "new").write_text("new")
        (tmp_path / "taken").write_text("taken")
        with pytest.raises(FileExistsError):
            moving.move_to_free(tmp_path / "new", tmp_path / "taken")
        moving.move_to_free(tmp_path / "new", tmp_path / "free")
        assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
            "taken": "taken",
            "free": "new",
        }
        (tmp_path / "free").unlink()


def test_nothing_is_moved_but_by_the_one_helper() -> None:
    """A bare rename fails on Windows as soon as a virus scanner looks at the file."""
    found = []
    for path in sorted((ROOT / "hypernetworks").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                moves = node.func.attr in ("rename", "renames", "move") or (
                    node.func.attr in ("replace", "link") and owner == "os"
                )
                if moves and path.name != "moving.py" and owner != "moving":
                    found.append(f"{path.name}: {ast.unparse(node)}")
    assert found == []


# ------------------------------------------------------------------ training


@pytest.mark.parametrize("suffix", ["state.pt", ".safetensors"])
def test_a_checkpoint_that_is_refused_is_told_and_tried_at_the_next_step(
    refuse: Refusing, tmp_path: Path, suffix: str
) -> None:
    plain, disturbed, told, saved = Toy(), Toy(), list[str](), list[tuple[int, str | None]]()
    train(plain.run(toy_settings(save_every=3), tmp_path / "plain"))
    attempts = len(moving.PAUSES) + 1
    refuse(attempts * 2, suffix=suffix)  # step 3 and step 4 are refused
    run = disturbed.run(toy_settings(save_every=3), tmp_path / "run", on_warning=told.append)
    train(run, on_step=lambda done: saved.append((done.step, done.saved)))

    assert same(plain.weights(), disturbed.weights())
    assert [s for s in saved if s[1]] == [(n, f"toy-{n}.safetensors") for n in (5, 6, 8)]
    assert len(told) == 2
    assert "step 3 could not be saved" in told[0]
    assert "step 5 is saved" in told[1]
    assert not [name for name in os.listdir(tmp_path / "run") if name.endswith(".tmp")]


def test_where_the_network_is_refused_the_state_is_kept(refuse: Refusing, tmp_path: Path) -> None:
    run = Toy().run(toy_settings(save_every=0), tmp_path, on_warning=lambda _: None)
    refuse(10**6, suffix=".safetensors")
    with pytest.raises(FileWriteError, match=r"toy-8\.safetensors"):
        train(run)
    assert Toy().run(toy_settings(), tmp_path).step == 8


def test_a_refused_file_hides_no_other_error(refuse: Refusing, tmp_path: Path) -> None:
    refuse(10**6)
    told: list[str] = []

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Toy().run(toy_settings(), tmp_path, on_warning=told.append), on_step=stop)
    assert "step 1 could not be saved" in told[-1]

    diverging = Toy()
    run = diverging.run(
        toy_settings(),
        tmp_path,
        on_warning=told.append,
        predict=lambda *given: diverging.predict(*given) * float("nan"),
    )
    with pytest.raises(DivergenceError):
        train(run)


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    "name", ["COM¹", "com².pt", "LPT³", "CONIN$", "conout$.txt", "NUL .txt", "aux.tar.gz", "Com0"]
)
def test_names_that_are_devices_on_windows(name: str) -> None:
    assert naming.DEVICE.fullmatch(name)


@pytest.mark.parametrize("name", ["COM10", "icon", "conin", "nul2", "lpt", "COM٣"])
def test_names_that_only_look_like_it(name: str) -> None:
    assert not naming.DEVICE.fullmatch(name)


@pytest.mark.parametrize("name", ["cafe\u0301", "हिन्दी", "ภาษาไทย", "Ünïcode"])
def test_letters_that_need_marks_can_be_in_a_name(name: str) -> None:
    check_name(name)
    check_name(unicodedata.normalize("NFD", name))


@pytest.mark.parametrize("name", ["\u0301cafe", "a\u202eb", "a\u200bb", "CONIN$", "COM¹"])
def test_marks_alone_and_hidden_signs_can_not(name: str) -> None:
    with pytest.raises(TrainingSettingsError):
        check_name(name)


def test_a_run_finds_its_files_however_the_system_spells_them(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        folder = tmp_path / form
        folder.mkdir()
        (folder / unicodedata.normalize(form, "café-12.pt")).touch()
        assert len(saved_networks(folder, "café", ".pt")) == 1
        assert len(saved_networks(folder, unicodedata.normalize("NFD", "café"), ".pt")) == 1
