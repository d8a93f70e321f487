"""Folders of networks: names, what is ambiguous, what is kept in memory, and that a scan opens
nothing."""

from __future__ import annotations

import builtins
import hashlib
import os
import time
import unicodedata
from contextlib import suppress
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
from hypernetworks.library.names import Names


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
        ("anime_3(e3b0c442)", "anime_3.pt"),
        ("Anime_3 (SHA)", "anime_3.pt"),
        ("INK/ink(SHA)", "INK/Ink.safetensors"),
        ("kept(beef)", "kept(beef).pt"),
        ("kept(beef)(SHA)", "kept(beef).pt"),
        ("anime_3.PT", "anime_3.pt"),
        ("ink\\Ink.safetensors", "INK/Ink.safetensors"),
        ("deep/down / 夏の絵", "deep/down/夏の絵.pt"),
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
    name = name.replace("SHA", hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()[:10])
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
    twins = {"twin.pt": "twin", "twin.ckpt": "twin.ckpt"}
    assert (
        names
        == {"ink.pt": "ink", "a/ink.pt": "a/ink", "b/Ink.pt": "Ink", "b/night.pt": "night"} | twins
    )
    for file, name in names.items():
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


def test_an_order_of_precedence_instead_of_ambiguity(tmp_path: Path) -> None:
    add(tmp_path, "own/ink.pt", "own/ink.safetensors", "shipped/ink.safetensors", "shipped/x.pt")
    library = Library([tmp_path / "own", tmp_path / "shipped"])
    entry = library.find("ink")
    assert entry.path == tmp_path / "own" / "ink.safetensors"
    assert library.find("ink.pt").path == tmp_path / "own" / "ink.pt"

    said = library.others("ink", entry)
    assert said is not None
    assert str(tmp_path / "own" / "ink.pt") in said
    assert str(tmp_path / "shipped" / "ink.safetensors") in said
    assert library.others("ink", entry) is None, "said once"
    assert library.others("x", library.find("x")) is None

    library.look_in([tmp_path / "shipped", tmp_path / "own"])
    assert library.find("ink").path == tmp_path / "shipped" / "ink.safetensors"


def test_one_folder_that_two_paths_lead_to_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path, "nets/ink.pt", "nets/sub/pen.pt")
    monkeypatch.chdir(tmp_path)
    paths: list[Path] = [tmp_path / "nets", Path("nets"), tmp_path / "nets" / "sub", tmp_path]
    with suppress(OSError, NotImplementedError):  # Windows gives links to few
        (tmp_path / "link").symlink_to(tmp_path / "nets", target_is_directory=True)
        paths.append(tmp_path / "link")
    for order in (paths, paths[::-1]):
        library = Library(order)
        assert [entry.name for entry in library.entries] == ["ink", "pen"]
        library.find("ink")
        library.find("pen")


def test_one_path_is_one_folder(tmp_path: Path) -> None:
    add(tmp_path, "ink.pt")
    for folder in (str(tmp_path), tmp_path, [str(tmp_path)]):
        assert Library(folder).folders == (tmp_path,)
    library = Library([])
    library.look_in(str(tmp_path))
    assert found(library, "ink") == "ink.pt"


@pytest.mark.parametrize(
    "name", ["mix (2023)", "mix(4500)", "mix(1024)", "mix(0123456789)", "mix [0123456789]"]
)
def test_a_hash_is_compared_and_never_guessed(name: str, tmp_path: Path) -> None:
    add(tmp_path, "mix.pt")
    with pytest.raises(UnknownNameError, match="mix"):
        Library([tmp_path]).find(name)


@pytest.mark.parametrize("name", ["Café noir", "が水彩", "Übung", "가나다", "Ёлка"])
def test_names_in_any_unicode_form(name: str, tmp_path: Path) -> None:
    for number, (here, typed) in enumerate([("NFD", "NFC"), ("NFC", "NFD"), ("NFC", "NFKD")]):
        folder = tmp_path / str(number)
        add(folder, f"{unicodedata.normalize(here, name)}.pt")
        entry = Library([folder]).find(unicodedata.normalize(typed, name))
        assert unicodedata.normalize("NFC", entry.name) == name


@pytest.mark.parametrize(
    ("name", "typed"), [("水彩の夜", "水彩の花"), ("수채화", "수체화"), ("акварель", "акварел")]
)
def test_hints_in_other_scripts(name: str, typed: str, tmp_path: Path) -> None:
    add(tmp_path, f"{unicodedata.normalize('NFD', name)}.pt")
    with pytest.raises(UnknownNameError) as caught:
        Library([tmp_path]).find(typed)
    assert name in unicodedata.normalize("NFC", str(caught.value))


def test_names_that_are_no_text_reach_no_message_unescaped() -> None:
    path = Path("wat\udce9rElemental.pt")
    names = Names((Entry(path.stem, path, "", 0, 0),))
    for wanted in ("waterElemental", "wat\ud800rElemental"):
        message = str(names.unknown(wanted))
        assert "\\udce9" in message
        message.encode()


def test_a_hint_among_many_names() -> None:
    entries = tuple(
        Entry(f"style {i:05} of {i % 97}", Path(f"{i}.pt"), "", 0, 0) for i in range(5000)
    )
    names = Names((*entries, Entry("neon night", Path("n.pt"), "", 0, 0)))
    assert "did you mean neon night" in str(names.unknown("neom nigth"))
    began = time.monotonic()
    for i in range(10):
        names.unknown(f"stile {i}")
    assert time.monotonic() - began < 5  # a tenth of a second is usual, a second per name was


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("inc", "did you mean ink?"),
        ("INKK", "did you mean ink?"),
        ("Watercolor", "did you mean Watercolour?"),
        ("zzzzzz", ""),
        ("ink.bin", "did you mean ink?"),
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
