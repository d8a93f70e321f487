"""What the menu of a card does to files, and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import hypernetworks as hn
from hypernetworks.studio.card_actions import TRASH, CardActions
from hypernetworks.studio.cards import described


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The user's folder with two networks, and the one that ships."""
    torch.manual_seed(0)
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    structure = hn.Structure((1, 2, 1), "linear", activate_output=False)
    for path in (own / "styles" / "ink.safetensors", own / "pen.pt", shipped / "sepia.pt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        hn.write(hn.Hypernetwork.create(path.stem, structure, (8,)), path)
    (own / "styles" / "ink.json").write_text('{"notes": "mine"}')
    (own / "styles" / "ink.preview.png").write_bytes(b"an image")
    (own / "styles" / "inkwell.txt").write_text("of another")
    return own, shipped


@pytest.fixture
def library(folders: tuple[Path, Path]) -> hn.Library:
    return hn.Library(folders)


@pytest.fixture
def actions(library: hn.Library, folders: tuple[Path, Path]) -> CardActions:
    return CardActions(library, folders[1])


def do(actions: CardActions, action: str, name: str, text: str = "", body: bytes = b"") -> Any:
    return actions.do(action, name, text, body)


def image(kind: str = "PNG", size: tuple[int, int] = (900, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, kind)
    return buffer.getvalue()


def test_tags_are_kept_beside_the_file(
    actions: CardActions, library: hn.Library, folders: tuple[Path, Path]
) -> None:
    assert do(actions, "tags", "ink", " old,  line  art ,, old") == {"tags": ["old", "line art"]}
    (ink,) = [entry for entry in described(library) if entry["name"] == "ink"]
    assert ink["tags"] == ["old", "line art"]
    stored = json.loads((folders[0] / "styles" / "ink.json").read_text())
    assert stored["notes"] == "mine"
    assert do(actions, "tags", "ink", "") == {"tags": []}
    assert len(do(actions, "tags", "ink", ",".join(map(str, range(99))))["tags"]) == 50


def test_a_rename_takes_what_is_beside_along(
    actions: CardActions, library: hn.Library, folders: tuple[Path, Path]
) -> None:
    assert do(actions, "rename", "styles/ink", "quill") == {"name": "quill"}
    names = sorted(path.name for path in (folders[0] / "styles").iterdir())
    assert names == ["inkwell.txt", "quill.json", "quill.preview.png", "quill.safetensors"]
    assert library.find("quill").name == "quill"


@pytest.mark.parametrize(
    ("to", "error"),
    [("pen", "exists already"), ("../pen", "slashes"), ("a:b", "colons"), ("", "is empty")],
)
def test_names_that_are_taken_or_none(
    actions: CardActions, folders: tuple[Path, Path], to: str, error: str
) -> None:
    (folders[0] / "other.pt").write_bytes((folders[0] / "pen.pt").read_bytes())
    actions._library.scan()
    with pytest.raises(hn.HypernetworkError, match=error):
        do(actions, "rename", "other", to)
    assert (folders[0] / "other.pt").is_file()


def test_the_trash_keeps_all_files_and_is_no_part_of_the_library(
    actions: CardActions, library: hn.Library, folders: tuple[Path, Path]
) -> None:
    (folders[0] / TRASH).mkdir()
    (folders[0] / TRASH / "ink.safetensors").write_bytes(b"an older one")
    do(actions, "discard", "ink")
    names = sorted(path.name for path in (folders[0] / TRASH).iterdir())
    assert names == ["ink-2.safetensors", "ink.json", "ink.preview.png", "ink.safetensors"]
    assert [entry.name for entry in library.entries] == ["pen", "sepia"]


def test_an_image_becomes_the_preview(actions: CardActions, folders: tuple[Path, Path]) -> None:
    do(actions, "preview", "pen", body=image("JPEG"))
    with Image.open(folders[0] / "pen.preview.png") as kept:
        assert (kept.format, kept.width) == ("PNG", 768)
    for body in (b"", b"<svg/>", image()[:60]):
        with pytest.raises(hn.HypernetworkError, match="not a PNG"):
            do(actions, "preview", "pen", body=body)


def test_a_rename_mixes_no_two_networks(
    actions: CardActions, library: hn.Library, folders: tuple[Path, Path]
) -> None:
    styles = folders[0] / "styles"
    (styles / "nib.pt").write_bytes((folders[0] / "pen.pt").read_bytes())
    (styles / "nib.json").write_text('{"notes": "of nib"}')
    (styles / "left.json").write_text('{"notes": "of nobody"}')
    library.scan()
    before = sorted(path.name for path in styles.iterdir())
    for to, there in (
        ("ink", "ink.safetensors"),
        ("INK", "ink.safetensors"),
        ("left", "left.json"),
    ):
        with pytest.raises(hn.HypernetworkError, match=f"{there} exists already"):
            do(actions, "rename", "nib", to)
        assert sorted(path.name for path in styles.iterdir()) == before
    assert do(actions, "rename", "nib", "Nib") == {"name": "Nib"}
    assert (styles / "Nib.json").is_file()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin", ".ckpt"])
def test_files_that_two_networks_share_stay(
    actions: CardActions, folders: tuple[Path, Path], suffix: str
) -> None:
    (folders[0] / f"pen{suffix}").write_bytes(
        (folders[0] / "styles" / "ink.safetensors").read_bytes()
    )
    (folders[0] / "pen.json").write_text("{}")
    actions._library.scan()
    entry = next(e for e in actions._library.entries if e.path.name == "pen.pt")
    do(actions, "discard", entry.full_name)
    assert (folders[0] / "pen.json").is_file()


def test_shipped_networks_stay_and_others_change_little(
    actions: CardActions, library: hn.Library, folders: tuple[Path, Path]
) -> None:
    for action in ("tags", "rename", "discard", "preview"):
        with pytest.raises(hn.HypernetworkError, match="included with the studio"):
            do(actions, action, "sepia", "x", image())
    remote = CardActions(library, folders[1], anywhere=True)
    for action in ("rename", "discard", "reveal"):
        with pytest.raises(hn.HypernetworkError, match="--listen"):
            do(remote, action, "pen", "x")
    assert do(remote, "tags", "pen", "x") == {"tags": ["x"]}
    with pytest.raises(hn.HypernetworkError, match="no hypernetwork"):
        do(actions, "discard", "../shipped/sepia")


def test_the_folder_is_shown_by_the_systems_own_program(
    actions: CardActions, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(
        "hypernetworks.studio.card_actions.subprocess.Popen",
        lambda command, **_: opened.extend(command),
    )
    do(actions, "reveal", "pen")
    assert opened == ["xdg-open", str(folders[0])]
