"""Side-cars: what is read beside a file, that broken ones cost nothing but a warning, and what
writing keeps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypernetworks.errors import FileWriteError
from hypernetworks.library import Entry, Library
from hypernetworks.library.sidecars import (
    ACTIVATION_TEXT,
    BASE_MODEL,
    DESCRIPTION,
    MULTIPLIER,
    NOTES,
    FolderNames,
    Sidecars,
    family_named,
    find_preview,
    read_sidecars,
    write_user_metadata,
)


def entry_in(folder: Path, name: str = "ink.pt") -> Entry:
    (folder / name).touch()
    return next(entry for entry in Library([folder]).scan() if entry.path.name == name)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def test_nothing_beside_it(tmp_path: Path) -> None:
    assert read_sidecars(entry_in(tmp_path)) == Sidecars()


def test_all_keys_of_the_lora_cards(tmp_path: Path) -> None:
    entry = entry_in(tmp_path)
    keys = {
        "description": "for ink",
        "sd version": "SD1",
        "activation text": "ink drawing",
        "preferred weight": 0.7,
        "notes": "mine",
        "negative text": "photo",
    }
    write_json(tmp_path / "ink.json", keys)
    found = read_sidecars(entry)
    assert (found.description, found.base_model, found.notes) == ("for ink", "SD1", "mine")
    assert (found.activation_text, found.preferred_multiplier) == ("ink drawing", 0.7)
    assert found.user_metadata == keys
    assert found.warnings == ()


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "bin", "ckpt", "pth"])
def test_all_file_types_and_stems_with_dots(tmp_path: Path, suffix: str) -> None:
    entry = entry_in(tmp_path, f"ink v1.5.{suffix}")
    (tmp_path / "ink v1.5.preview.png").touch()
    (tmp_path / "ink v1.5.txt").write_text("words\n", encoding="utf-8")
    found = read_sidecars(entry)
    assert found.preview == tmp_path / "ink v1.5.preview.png"
    assert found.description == "words"


@pytest.mark.parametrize(
    ("there", "shown"),
    [
        (["ink.png"], "ink.png"),
        (["ink.gif"], "ink.gif"),
        (["ink.preview.webp", "ink.png"], "ink.preview.webp"),
        (["ink.preview.jpg", "ink.preview.jpeg"], "ink.preview.jpg"),
        (["ink.txt", "ink2.png", "in.png"], None),
        (["ink.PNG"], "ink.PNG"),
        (["Ink.Preview.Jpg"], "Ink.Preview.Jpg"),
        (["ink.PNG", "ink.png"], "ink.png"),
    ],
)
def test_previews(tmp_path: Path, there: list[str], shown: str | None) -> None:
    entry = entry_in(tmp_path)
    for name in there:
        (tmp_path / name).touch()
    expected = tmp_path / shown if shown else None
    assert read_sidecars(entry).preview == expected
    assert read_sidecars(entry, FolderNames(os.listdir(tmp_path))).preview == expected


def test_previews_of_another_suffix(tmp_path: Path) -> None:
    (tmp_path / "ink.preview.avif").touch()
    assert find_preview(tmp_path / "ink") is None
    assert find_preview(tmp_path / "ink", suffixes=("png", "avif")) == tmp_path / "ink.preview.avif"


def test_the_editors_description_counts_even_if_it_is_empty(tmp_path: Path) -> None:
    entry = entry_in(tmp_path)
    (tmp_path / "ink.txt").write_bytes(b"\xef\xbb\xbffrom the file \xff")
    assert read_sidecars(entry).description == "from the file \N{REPLACEMENT CHARACTER}"
    write_json(tmp_path / "ink.json", {"description": ""})
    assert read_sidecars(entry).description == ""


def test_what_the_site_says_fills_the_gaps(tmp_path: Path) -> None:
    entry = entry_in(tmp_path)
    version = {
        "baseModel": "SD 1.5",
        "trainedWords": ["ink", " drawing, ", 3, ""],
        "model": {"name": "Ink & Wash"},
    }
    write_json(tmp_path / "ink.civitai.info", version)
    found = read_sidecars(entry)
    assert (found.activation_text, found.base_model) == ("ink, drawing", "SD1")
    assert (found.title, found.description) == ("Ink & Wash", "Ink & Wash")
    write_json(tmp_path / "ink.json", {"activation text": "", "sd version": "SD2"})
    found = read_sidecars(entry)
    assert (found.activation_text, found.base_model) == ("", "SD2")


def test_sd_next_keeps_the_sites_description_of_the_model_in_the_json(tmp_path: Path) -> None:
    entry = entry_in(tmp_path)
    model = {
        "name": "Ink",
        "description": "<p>Black &amp; white</p><p>two</p>",
        "modelVersions": [{"baseModel": "SDXL 1.0", "trainedWords": ["ink"]}],
    }
    write_json(tmp_path / "ink.json", model)
    found = read_sidecars(entry)
    assert (found.description, found.base_model, found.activation_text) == (
        "Black & white\ntwo",
        "SDXL",
        "ink",
    )
    model["description"] = "broken <![ markup"
    write_json(tmp_path / "ink.json", model)
    assert "broken" in read_sidecars(entry).description


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("SD 1.4", "SD1"),
        ("SD1", "SD1"),
        ("Stable Diffusion 1.5", "SD1"),
        ("SD 2.1 768", "SD2"),
        ("SDXL Turbo", "SDXL"),
        ("Pony", "SDXL"),
        ("Illustrious", "SDXL"),
        ("Unknown", ""),
        ("Flux.1 D", ""),
        ("SD 3.5", ""),
        ("", ""),
    ],
)
def test_names_of_base_models(text: str, family: str) -> None:
    assert family_named(text) == family


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (0.7, 0.7),
        ("0.5", 0.5),
        (0, None),
        (0.0, None),
        (None, None),
        ("", None),
        (-1, -1.0),
        (2.5, 2.5),
    ],
)
def test_preferred_multipliers(tmp_path: Path, written: Any, read: float | None) -> None:
    entry = entry_in(tmp_path)
    write_json(tmp_path / "ink.json", {"preferred weight": written})
    assert read_sidecars(entry) == Sidecars(
        preferred_multiplier=read, user_metadata={"preferred weight": written}
    )


@pytest.mark.parametrize(
    "written", [True, "much", [1], {}, "nan", float("nan"), float("inf"), 10**400]
)
def test_multipliers_that_are_none(tmp_path: Path, written: Any) -> None:
    entry = entry_in(tmp_path)
    write_json(tmp_path / "ink.json", {"preferred weight": written})
    found = read_sidecars(entry)
    assert found.preferred_multiplier is None
    assert found.warnings == ('"preferred weight" in ink.json is not a number and was ignored',)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "cut", "list", "null", "text", "binary", "deep", "long number"],
)
def test_broken_files_are_warnings(tmp_path: Path, content: bytes) -> None:
    entry = entry_in(tmp_path)
    for name in ("ink.json", "ink.civitai.info"):
        (tmp_path / name).write_bytes(content)
    found = read_sidecars(entry)
    assert found == Sidecars(warnings=found.warnings)
    assert [warning.split()[0] for warning in found.warnings] == ["ink.json", "ink.civitai.info"]


@pytest.mark.parametrize("word", ["<a ", "<!--", "<a href='", "<![", "</", "<?", "&#", "<script>"])
def test_unfinished_markup_takes_no_time_to_speak_of(word: str, tmp_path: Path) -> None:
    entry = entry_in(tmp_path)
    text = f"<p>before &amp; after</p>{word * 200_000}"  # python's own parser: hours
    write_json(tmp_path / "ink.json", {"modelVersions": [], "description": text})
    assert read_sidecars(entry).description.startswith("before & after")


def test_huge_files_are_left_aside(tmp_path: Path) -> None:
    entry = entry_in(tmp_path)
    with (tmp_path / "ink.json").open("wb") as file:
        file.truncate(5 << 20)
    with (tmp_path / "ink.txt").open("wb") as file:
        file.truncate(1 << 20)
    found = read_sidecars(entry)
    assert "larger than 2 MiB" in found.warnings[0]
    assert len(found.description) <= 1 << 14


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_folders_and_pipes_of_these_names(tmp_path: Path) -> None:
    entry = entry_in(tmp_path)
    (tmp_path / "ink.txt").mkdir()
    os.mkfifo(tmp_path / "ink.json")
    names = FolderNames(os.listdir(tmp_path))
    assert read_sidecars(entry) == read_sidecars(entry, names) == Sidecars()


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entry_in(tmp_path)
    (tmp_path / "ink.txt").touch()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert read_sidecars(entry).warnings[0] == "ink.txt can't be read (Permission denied)"


def test_names_as_long_as_they_get(tmp_path: Path) -> None:
    entry = entry_in(tmp_path, "i" * 252 + ".pt")
    assert read_sidecars(entry) == Sidecars()


KEYS = [ACTIVATION_TEXT, MULTIPLIER, NOTES, BASE_MODEL, DESCRIPTION]
KEYS_OF_SITES = ["modelVersions", "trainedWords", "model", "name", "baseModel"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*KEYS, *KEYS_OF_SITES]), inner)
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read(tmp_path: Path, content: Any) -> None:
    entry = entry_in(tmp_path)
    write_json(tmp_path / "ink.json", content)
    write_json(tmp_path / "ink.civitai.info", content)
    found = read_sidecars(entry)
    for text in (
        found.description,
        found.activation_text,
        found.notes,
        found.base_model,
        found.title,
    ):
        assert isinstance(text, str)
        text.encode()


def test_writing_keeps_what_stands_there(tmp_path: Path) -> None:
    entry = entry_in(tmp_path)
    write_json(
        tmp_path / "ink.json", {"negative text": "photo", "notes": "old", "other": [1, {"a": "ü"}]}
    )
    write_user_metadata(entry, {"notes": "neu 🎨", "other": None, "preferred weight": 0.5})
    text = (tmp_path / "ink.json").read_text(encoding="utf-8")
    assert json.loads(text) == {
        "negative text": "photo",
        "notes": "neu 🎨",
        "preferred weight": 0.5,
    }
    assert "neu 🎨" in text
    assert sorted(os.listdir(tmp_path)) == ["ink.json", "ink.pt"]
    assert read_sidecars(entry).notes == "neu 🎨"


def test_writing_for_the_first_time_and_halves_of_characters(tmp_path: Path) -> None:
    entry = entry_in(tmp_path)
    write_user_metadata(entry, {"notes": "half \ud83d"})
    assert json.loads((tmp_path / "ink.json").read_text(encoding="utf-8")) == {"notes": "half ?"}


def test_a_broken_file_is_kept_aside(tmp_path: Path) -> None:
    entry = entry_in(tmp_path)
    (tmp_path / "ink.json").write_bytes(b'{"notes": "precious"')
    write_user_metadata(entry, {"notes": "new"})
    assert (tmp_path / "ink.json.unreadable").read_bytes() == b'{"notes": "precious"'
    assert read_sidecars(entry).notes == "new"


def test_a_failed_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entry_in(tmp_path)
    write_user_metadata(entry, {"notes": "old"})

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(FileWriteError, match="No space"):
        write_user_metadata(entry, {"notes": "new"})
    monkeypatch.undo()
    assert read_sidecars(entry).notes == "old"
    assert sorted(os.listdir(tmp_path)) == ["ink.json", "ink.pt"]
