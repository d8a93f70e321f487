"""Folders of networks: names, what is ambiguous, what is kept in memory, and that a scan opens
nothing."""

from __future__ import annotations

import builtins
import hashlib
import os
from pathlib import Path

import pytest
import torch
from reference import Recipe
from unit.files.containers import save_zip

import hypernetworks as hn
from hypernetworks.errors import (
    AmbiguousNameError,
    FileMissingError,
    NotAHypernetworkError,
    UnknownNameError,
)
from hypernetworks.library import Entry, Library


def add(folder: Path, *names: str) -> None:
    """Files that a scan sees; nothing is in them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def network(path: Path, seed: int = 0, width: int = 8) -> Path:
    """A healthy file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_zip(Recipe((width,), seed=seed).content(), path)


def found(library: Library, name: str) -> str:
    """Path of the file that a name means, relative to the first folder."""
    return library.find(name).path.relative_to(library.folders[0]).as_posix()


# Scanning


def test_what_is_listed(tmp_path: Path) -> None:
    listed = [
        "a.pt",
        "b.safetensors",
        "c.bin",
        "d.ckpt",
        "e.pth",
        "F.PT",
        "sub/g.pt",
        "sub/deeper/h i.v2.pt",
    ]
    add(tmp_path, *listed)
    add(
        tmp_path,
        "a.pt.optim",
        "a.png",
        "a.preview.png",
        "a.json",
        "b.txt",
        "n.hns",
        ".hidden.pt",
        ".cache/x.pt",
        "pt",
    )
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "dangling.pt").symlink_to(tmp_path / "nowhere")
    entries = Library([tmp_path]).scan()
    assert sorted(entry.path.relative_to(tmp_path).as_posix() for entry in entries) == sorted(
        listed
    )
    assert [entry.name for entry in entries] == ["a", "b", "c", "d", "e", "F", "g", "h i.v2"]
    assert {entry.full_name for entry in entries} >= {"a", "F", "sub/g", "sub/deeper/h i.v2"}
    assert {entry.folder for entry in entries} == {"", "sub", "sub/deeper"}


def test_entries_know_size_time_and_hash(tmp_path: Path) -> None:
    path = network(tmp_path / "a.pt")
    (entry,) = Library([tmp_path]).entries
    status = path.stat()
    assert entry == Entry("a", path, "", status.st_size, status.st_mtime_ns)
    assert entry.identity == (str(path), status.st_size, status.st_mtime_ns)
    assert entry.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_scan_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network(tmp_path / "a.pt")
    network(tmp_path / "sub" / "b.safetensors")
    opened: list[object] = []

    def note(*arguments: object, **_: object) -> None:
        opened.append(arguments)
        raise OSError("not to be opened")

    for module, name in ((builtins, "open"), (os, "open"), (Path, "open")):
        monkeypatch.setattr(module, name, note)
    library = Library([tmp_path])
    assert len(library.scan()) == 2
    assert library.find("sub/b").name == "b"
    assert opened == []


def test_folders_that_do_not_exist_are_skipped(tmp_path: Path) -> None:
    add(tmp_path, "real/a.pt", "file")
    library = Library(
        [tmp_path / "no such", tmp_path / "file", tmp_path / "real", str(tmp_path / "real")]
    )
    assert [entry.name for entry in library.scan()] == ["a"]


def test_links_that_lead_round_in_a_circle(tmp_path: Path) -> None:
    add(tmp_path, "sub/a.pt", "other/b.pt")
    (tmp_path / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "sub" / "self").symlink_to(tmp_path / "sub", target_is_directory=True)
    (tmp_path / "alias").symlink_to(tmp_path / "sub", target_is_directory=True)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    entries = Library([tmp_path]).scan()
    assert [entry.full_name for entry in entries] == ["sub/a", "other/b"], (
        "each once, under its real folder"
    )


def test_links_to_files_and_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    add(tmp_path, "elsewhere/a.pt", "elsewhere/folder/b.pt", "library/c.pt")
    (tmp_path / "library" / "linked.pt").symlink_to(tmp_path / "elsewhere" / "a.pt")
    (tmp_path / "library" / "more").symlink_to(
        tmp_path / "elsewhere" / "folder", target_is_directory=True
    )
    library = Library([tmp_path / "library"])
    assert [entry.full_name for entry in library.scan()] == ["more/b", "c", "linked"]


def test_new_and_removed_files_are_seen_after_a_scan(tmp_path: Path) -> None:
    add(tmp_path, "a.pt")
    library = Library([tmp_path])
    assert [entry.name for entry in library.entries] == ["a"]
    add(tmp_path, "b.pt")
    (tmp_path / "a.pt").unlink()
    assert [entry.name for entry in library.entries] == ["a"], "no scan, no news"
    library.scan()
    assert [entry.name for entry in library.entries] == ["b"]


# Names


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ink", "ink.pt"),
        ("Ink", "INK/Ink.safetensors"),
        ("my style v1.5 [x]", "my style v1.5 [x].pt"),
        (" my style v1.5 [x] ", "my style v1.5 [x].pt"),
        ("MY STYLE V1.5 [X]", "my style v1.5 [x].pt"),
        ("夏の絵", "deep/down/夏の絵.pt"),
        ("deep/down/夏の絵", "deep/down/夏の絵.pt"),
        ("Deep/DOWN/夏の絵", "deep/down/夏の絵.pt"),
        ("STRASSE", "straße.bin"),
        ("a=b", "a=b.pt"),
        ("foo-1000", "foo-1000.pt"),
        ("anime_3(63a0e9f7)", "anime_3.pt"),
        ("Anime_3(63a0e9f701)", "anime_3.pt"),
        ("INK/ink(0123abcd)", "INK/Ink.safetensors"),
        ("kept(beef)", "kept(beef).pt"),
        ("kept(beef)(63a0e9f7)", "kept(beef).pt"),
    ],
)
def test_names(name: str, file: str, tmp_path: Path) -> None:
    add(
        tmp_path,
        "ink.pt",
        "INK/Ink.safetensors",
        "my style v1.5 [x].pt",
        "deep/down/夏の絵.pt",
        "straße.bin",
    )
    add(tmp_path, "a=b.pt", "foo-1000.pt", "foo-2000.pt", "anime_3.pt", "kept(beef).pt", "kept.pt")
    assert found(Library([tmp_path]), name) == file


def test_an_inner_name_never_counts(tmp_path: Path) -> None:
    save_zip(Recipe().content() | {"name": "foo"}, tmp_path / "foo-1000.pt")
    library = Library([tmp_path])
    assert library.load(library.find("foo-1000")).name == "foo-1000"
    with pytest.raises(UnknownNameError):
        library.find("foo")


def test_one_stem_in_several_folders_is_ambiguous_and_all_are_reachable(tmp_path: Path) -> None:
    add(tmp_path, "a/ink.pt", "b/ink.safetensors", "B2/Ink.pt")
    library = Library([tmp_path])
    with pytest.raises(AmbiguousNameError, match="a/ink or b/ink") as caught:
        library.find("ink")
    assert isinstance(caught.value, LookupError)
    assert found(library, "a/ink") == "a/ink.pt"
    assert found(library, "b/ink") == "b/ink.safetensors"
    assert found(library, "Ink") == "B2/Ink.pt", "an exact match comes first"
    with pytest.raises(AmbiguousNameError, match="B2/Ink"):
        library.find("INK")


def test_a_file_at_the_top_is_reachable_beside_others_of_its_stem(tmp_path: Path) -> None:
    add(tmp_path, "ink.pt", "a/ink.pt")
    assert found(Library([tmp_path]), "ink") == "ink.pt"
    assert found(Library([tmp_path]), "a/ink") == "a/ink.pt"


def test_what_a_tag_calls_a_file(tmp_path: Path) -> None:
    add(tmp_path, "ink.pt", "a/ink.pt", "b/Ink.pt", "b/night.pt", "twin.pt", "twin.ckpt")
    library = Library([tmp_path])
    names = {
        entry.path.relative_to(tmp_path).as_posix(): library.name_of(entry)
        for entry in library.entries
    }
    twins = {"twin.pt": "twin", "twin.ckpt": "twin"}
    assert (
        names
        == {"ink.pt": "ink", "a/ink.pt": "a/ink", "b/Ink.pt": "Ink", "b/night.pt": "night"} | twins
    )
    for file, name in names.items():
        if name != "twin":
            assert found(library, name) == file


def test_other_folders(tmp_path: Path) -> None:
    network(tmp_path / "one" / "a.pt")
    add(tmp_path, "two/b.pt")
    library = Library([tmp_path / "one"])
    loaded, entries = library.load(library.find("a")), library.entries
    library.look_in([str(tmp_path / "one")])
    assert library.entries is entries, "the same folders are not scanned again"
    library.look_in([tmp_path / "one", tmp_path / "two"])
    assert [entry.name for entry in library.entries] == ["a", "b"]
    assert library.load(library.find("a")) is loaded


def test_the_hash_of_before_2023(tmp_path: Path) -> None:
    content = bytes(range(256)) * (5 << 10)
    (tmp_path / "large.pt").write_bytes(content)
    (tmp_path / "small.pt").write_bytes(content[: 1 << 20])
    library = Library([tmp_path])
    expected = hashlib.sha256(content[0x100000 : 0x100000 + 0x10000]).hexdigest()[:8]
    assert library.find("large").early_hash() == expected
    assert library.find("small").early_hash() is None


def test_files_that_no_name_tells_apart(tmp_path: Path) -> None:
    add(tmp_path, "ink.pt", "ink.safetensors", "other/ink2.pt", "folder/other/ink2.pt")
    library = Library([tmp_path, tmp_path / "folder"])
    for name in ("ink", "other/ink2"):
        with pytest.raises(AmbiguousNameError, match="rename all but one of") as caught:
            library.find(name)
    assert str(tmp_path / "other" / "ink2.pt") in str(caught.value)
    assert str(tmp_path / "folder" / "other" / "ink2.pt") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("inc", "did you mean ink?"),
        ("INKK", "did you mean ink?"),
        ("Watercolor", "did you mean Watercolour?"),
        ("zzzzzz", ""),
        ("ink.pt", "did you mean ink?"),
        ("../ink", "did you mean ink?"),
        ("", ""),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(
    name: str, suggestion: str, tmp_path: Path
) -> None:
    add(tmp_path, "ink.pt", "Watercolour.pt")
    with pytest.raises(UnknownNameError) as caught:
        Library([tmp_path]).find(name)
    assert f'"{name}"' in str(caught.value)
    assert ("did you mean" in str(caught.value)) == bool(suggestion)
    assert suggestion in str(caught.value)


def test_an_empty_library_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no files in") as caught:
        Library([tmp_path]).find("ink")
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(UnknownNameError, match="any folder"):
        Library([]).find("ink")


# Loading


def test_a_network_is_read_once(tmp_path: Path) -> None:
    network(tmp_path / "a.pt")
    library = Library([tmp_path])
    first = library.load(library.find("a"))
    assert library.load(library.find("A")) is first
    library.scan()
    assert library.load(library.find("a")) is first


def test_a_file_replaced_on_disk_is_read_again_without_a_scan(tmp_path: Path) -> None:
    path = network(tmp_path / "a.pt", seed=1)
    library = Library([tmp_path])
    entry, x = library.find("a"), torch.ones(1, 1, 8)
    before, size = library.load(entry).transform(x)[0], library.loaded_bytes
    modified = path.stat().st_mtime_ns
    hn.write(hn.read(network(tmp_path / "new" / "b.pt", seed=2)), path)
    os.utime(path, ns=(modified + 1, modified + 1))
    after = library.load(entry).transform(x)[0]
    assert not torch.equal(before, after)
    assert torch.equal(after, hn.read(path).transform(x)[0])
    assert library.loaded_bytes == size, "the old one is not kept"


def test_a_renamed_file_is_another_entry(tmp_path: Path) -> None:
    path = network(tmp_path / "a.pt")
    library = Library([tmp_path])
    library.load(library.find("a"))
    path.rename(tmp_path / "b.pt")
    library.scan()
    assert library.load(library.find("b")).name == "b"
    with pytest.raises(UnknownNameError):
        library.find("a")


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    path = network(tmp_path / "a.pt")
    library = Library([tmp_path])
    entry = library.find("a")
    library.load(entry)
    path.unlink()
    with pytest.raises(FileMissingError, match="refresh"):
        library.load(entry)


def test_a_file_that_can_not_be_read_is_not_kept_and_may_be_repaired(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_text("no network")
    library = Library([tmp_path])
    entry = library.find("a")
    for _ in range(2):
        with pytest.raises(NotAHypernetworkError):
            library.load(entry)
    network(tmp_path / "a.pt")
    assert library.load(entry).widths == (8,)
