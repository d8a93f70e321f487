"""Finding by name against a slow reference, and scans of what has changed and what has not."""

from __future__ import annotations

import os
import re
import time
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from unit.library.test_library import add

from hypernetworks.errors import AmbiguousNameError, UnknownNameError
from hypernetworks.library import Entry, Library, names
from hypernetworks.library.names import Names

NAMES = st.text(st.sampled_from("aAbBßsSİi/() 0f"), max_size=6)
FILES = st.lists(
    st.tuples(
        st.sampled_from(["", "x", "X", "x/y"]),
        NAMES.filter(bool).map(lambda name: name.replace("/", "-")),  # a file has none
        st.sampled_from([".pt", ".safetensors"]),
    ),
    unique=True,
    max_size=12,
)


def made(files: list[tuple[str, str, str]]) -> tuple[Entry, ...]:
    """Entries that a scan could have found, whatever a real file system makes of their names."""
    return tuple(
        Entry(name, Path(folder) / f"{name}{suffix}", folder, 0, 0)
        for folder, name, suffix in files
    )


def composed(name: str) -> str:
    text = unicodedata.normalize("NFC", name).replace("\\", "/")
    return "/".join(part.strip() for part in text.split("/"))


def by_looking_at_all(entries: tuple[Entry, ...], name: str) -> Entry | str:
    """What a name means by the rule as it is documented, or the kind of the error."""
    for entry in entries:
        same = [other for other in entries if other.full_name == entry.full_name]
        is_first = entry is min(same, key=lambda e: e.path.suffix != ".safetensors")
        if entry.full_name + entry.path.suffix == name and not is_first:
            return entry
    suffixed = re.fullmatch(r"(.+)(\.pt|\.safetensors)", name.strip(), re.IGNORECASE)
    readings = [(name, ""), *([(suffixed[1], suffixed[2].lower())] if suffixed else [])]
    folds: tuple[Callable[[str], str], ...] = (
        str,
        composed,
        lambda n: unicodedata.normalize("NFC", composed(n).casefold()),
        lambda n: unicodedata.normalize(
            "NFC", composed(unicodedata.normalize("NFKC", n)).casefold()
        ),
    )
    for wanted, suffix in readings:
        for fold in folds:
            found = [e for e in entries if fold(wanted) in (fold(e.name), fold(e.full_name))]
            whole = [e for e in found if fold(e.full_name) == fold(wanted)]
            fitting = [e for e in whole or found if e.path.suffix in (suffix or e.path.suffix)]
            if len({e.full_name for e in fitting}) > 1:
                return "ambiguous"
            if fitting:
                return min(fitting, key=lambda e: e.path.suffix != ".safetensors")
    return "unknown"


@pytest.mark.slow
@given(FILES, NAMES, st.sampled_from(["", " ", ".pt", ".SAFETENSORS"]))
@example([("", "ß", ".pt"), ("x", "SS", ".pt")], "ss", "")
@example([("x", "a", ".pt"), ("x", "a", ".safetensors")], "a", "")
@example([("", " a", ".pt"), ("", " a", ".safetensors"), ("", "a", ".pt")], " a", ".pt")
def test_find_is_the_documented_rule(
    files: list[tuple[str, str, str]], other: str, end: str
) -> None:
    entries = made(files)
    names = Names(entries)
    for name in {other, *(e.name for e in entries), *(e.full_name.swapcase() for e in entries)}:
        try:
            found: Entry | str = names.find(name + end) or "unknown"
        except AmbiguousNameError:
            found = "ambiguous"
        assert found == by_looking_at_all(entries, name + end)


ODD = st.lists(
    st.tuples(
        st.sampled_from(["", "x", "x/y", "x.pt"]),
        st.lists(
            st.sampled_from(["a", "A", ".pt", ".safetensors", ".PT", " ", "é", "(0a0a0a0a)", "\n"]),
            min_size=1,
            max_size=3,
        ).map("".join),
        st.sampled_from([".pt", ".safetensors", ".PT", ".bin"]),
    ),
    unique=True,
    max_size=12,
)


@given(ODD)
@example([("", "ink", ".pt"), ("", "ink", ".safetensors"), ("", "ink.pt", ".safetensors")])
@example([("x", "ink", ".pt"), ("x", "ink", ".PT"), ("", "ink", ".bin"), ("", "ink.PT", ".pt")])
@example(
    [
        ("", "a", ".pt"),
        ("", "a", ".safetensors"),
        ("", "a.pt", ".safetensors"),
        ("", "a.pt.safetensors", ".pt"),
    ]
)
@example([("", " a", ".pt"), ("", " a", ".safetensors"), ("", "a", ".pt")])
def test_the_name_of_a_file_means_that_file(files: list[tuple[str, str, str]]) -> None:
    names = Names(made(files))
    for entry in names.entries:
        assert names.find(names.name_of(entry)) is entry


@given(ODD)
def test_a_file_is_hidden_only_by_its_path_in_an_earlier_folder(
    files: list[tuple[str, str, str]],
) -> None:
    earlier = made(files)
    later = tuple(replace(entry, place=1) for entry in earlier)
    other = replace(later[0], name="only here", path=Path("only here.pt")) if later else None
    names = Names((*earlier, *later, *([other] if other else [])))
    for entry in (*earlier, *([other] if other else [])):
        assert names.find(names.name_of(entry)) is entry


@given(FILES)
def test_stems_that_several_files_share(files: list[tuple[str, str, str]]) -> None:
    entries = made(files)
    shared = {e.name for e in entries if sum(other.name == e.name for other in entries) > 1}
    assert Names(entries).ambiguous == shared


def test_a_scan_without_news_gives_the_same_tuple(tmp_path: Path) -> None:
    add(tmp_path, "a.pt", "sub/b.pt", "sub/c.safetensors")
    library = Library([tmp_path])
    first = library.scan()
    assert library.scan() is first
    add(tmp_path, "sub/d.pt")
    second = library.scan()
    assert [e.name for e in second] == ["a", "b", "c", "d"]
    assert all(entry is second[i] for i, entry in enumerate(first)), (
        "what is as it was is not made again"
    )
    (tmp_path / "sub" / "d.pt").unlink()
    assert library.scan() == first


@pytest.mark.parametrize("times_kept", [False, True])
def test_a_file_that_changes_in_place_is_seen_though_its_folder_does_not_change(
    times_kept: bool, tmp_path: Path
) -> None:
    add(tmp_path, "sub/a.pt", "sub/b.pt")
    library, folder = Library([tmp_path]), (tmp_path / "sub").stat().st_mtime_ns
    a, b = library.scan()
    (tmp_path / "sub" / "a.pt").write_bytes(b"more")
    later = a.mtime_ns if times_kept else a.mtime_ns + 1
    os.utime(tmp_path / "sub" / "a.pt", ns=(later, later))
    assert (tmp_path / "sub").stat().st_mtime_ns == folder
    changed, same = library.scan()
    assert (changed.size, changed.mtime_ns) == (4, later)
    assert same is b
    assert library.find("a") is changed


def test_a_file_that_moves_to_another_folder_of_the_library(tmp_path: Path) -> None:
    add(tmp_path, "one/sub/a.pt")
    library = Library([tmp_path / "one"])
    assert [e.full_name for e in library.entries] == ["sub/a"]
    library.look_in([tmp_path / "one" / "sub"])
    assert [e.full_name for e in library.entries] == ["a"], "the same file, but another name"
    library.look_in([tmp_path / "one"])
    assert library.find("sub/a").folder == "sub"


def test_a_library_that_loses_its_folder(tmp_path: Path) -> None:
    add(tmp_path, "lib/a.pt")
    library = Library([tmp_path / "lib"])
    assert library.find("a").name == "a"
    (tmp_path / "lib").rename(tmp_path / "away")
    assert library.scan() == ()
    with pytest.raises(UnknownNameError, match="no files in"):
        library.find("a")
    (tmp_path / "away").rename(tmp_path / "lib")
    assert len(library.scan()) == 1


def test_the_first_unknown_name_among_many_is_answered_as_fast_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path, "ink.pt", "sub/oil.pt")
    library = Library([tmp_path])
    library.scan()
    for table in ("_by", "_likeness"):
        monkeypatch.setattr(names.Names, table, None)  # the scan has made them
    with pytest.raises(UnknownNameError, match="did you mean ink"):
        library.find("imk")


@pytest.mark.parametrize("name", ["Ink", "sub\\Ink ", "Ｉｎｋ", "in\nk", "夏"])
def test_one_untidy_name_among_simple_ones_changes_nothing_for_the_others(name: str) -> None:
    entries = tuple(
        Entry(stem, Path(f"{number}.pt"), "A/b", 1, 1)
        for number, stem in enumerate(("Oil", name, "chalk"))
    )
    found = names.Names(entries)
    for entry in entries:
        assert found.find(entry.name) is entry
        assert found.find(entry.full_name.upper()) in (entry, None if "\n" in name else entry)
    assert names._compatible([e.full_name for e in entries]) == [
        names.compatible(e.full_name) for e in entries
    ]


def test_fifty_thousand_names() -> None:
    entries = tuple(
        Entry(f"style {number * 7919 % 99991:x}", Path(f"{number}.pt"), "", 1, 1)
        for number in range(50_000)
    )
    found = names.Names(entries)
    found.prepare()
    began = time.process_time()
    assert found.find("stile abcd") is None
    assert "did you mean" in str(found.unknown("stile abcd"))
    assert time.process_time() - began < 0.5, "0.02 s on an idle machine"
