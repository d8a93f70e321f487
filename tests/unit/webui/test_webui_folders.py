"""Folders of a webui: which ones, the host's own list in step with ours, hashes through the host's
cache."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_webui import HOSTS, FakeWebui
from unit.library.test_library import add, network

import hypernetworks as hn
from hypernetworks.errors import UnsupportedVariantError
from hypernetworks.hosts.webui import (
    extra_network,
    folders,
    hashes,
    registration,
    replacing,
    settings,
)

with_built_in = pytest.mark.parametrize("fake_webui", ["a1111", "forge", "reforge"], indirect=True)
without_built_in = pytest.mark.parametrize("fake_webui", ["classic", "sdnext"], indirect=True)
every_host = pytest.mark.parametrize("fake_webui", HOSTS, indirect=True)


def set_folders(webui: FakeWebui, *paths: object) -> None:
    """What the user writes into our setting."""
    webui.shared.opts.data[settings.FOLDERS] = "\n".join(map(str, paths))


# Which folders


@every_host
def test_the_default_folder(fake_webui: FakeWebui) -> None:
    assert folders.folders() == (fake_webui.folder,)


def test_the_command_line_says_another(fake_webui: FakeWebui, tmp_path: Path) -> None:
    fake_webui.shared.cmd_opts.hypernetwork_dir = str(tmp_path / "elsewhere")
    assert folders.folders() == (tmp_path / "elsewhere",)


@every_host
def test_more_folders(
    fake_webui: FakeWebui, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    set_folders(
        fake_webui,
        tmp_path / "one",
        f'  "{tmp_path}/two" ; relative',
        "",
        "~/three",
        "~nobody-here/four",
    )
    root = fake_webui.root
    assert folders.folders() == (
        *(fake_webui.folder, tmp_path / "one", tmp_path / "two"),
        *(root / "relative", tmp_path / "home" / "three", root / "~nobody-here" / "four"),
    )


def test_each_folder_counts_once(fake_webui: FakeWebui, tmp_path: Path) -> None:
    add(fake_webui.folder, "sub/a.pt")
    (tmp_path / "link").symlink_to(fake_webui.folder, target_is_directory=True)
    set_folders(
        fake_webui,
        fake_webui.folder / "sub",
        tmp_path / "link",
        f"{fake_webui.folder}/",
        tmp_path / "link/sub",
    )
    assert folders.folders() == (fake_webui.folder,)
    assert [entry.full_name for entry in folders.library().entries] == ["sub/a"]


def test_a_folder_around_the_webuis_own(fake_webui: FakeWebui) -> None:
    add(fake_webui.root, "models/hypernetworks/sub/a.pt", "models/other/b.pt")
    set_folders(fake_webui, fake_webui.root / "models")
    entries = {entry.name: entry.full_name for entry in folders.library().entries}
    assert entries == {"a": "sub/a", "b": "other/b"}, (
        "files in the webui's own folder keep their names"
    )


# The library


def test_one_library_that_follows_the_settings(fake_webui: FakeWebui, tmp_path: Path) -> None:
    network(fake_webui.folder / "a.pt")
    network(tmp_path / "more" / "b.pt")
    library = folders.library()
    loaded = library.load(library.find("a"))
    assert [entry.name for entry in library.entries] == ["a"]
    set_folders(fake_webui, tmp_path / "more")
    fake_webui.shared.opts.data[settings.CACHE_MB] = 7
    assert folders.library() is library
    assert library.cache_bytes == 7 << 20
    assert [entry.name for entry in library.entries] == ["a", "b"]
    assert library.load(library.find("a")) is loaded, "a change of folders reads nothing again"


def test_a_change_of_the_setting_reaches_the_hosts_list(
    fake_webui: FakeWebui, tmp_path: Path
) -> None:
    add(tmp_path / "more", "b.safetensors")
    registration.ui_settings()
    folders.register()
    fake_webui.shared.opts.set(settings.FOLDERS, str(tmp_path / "more"))
    assert fake_webui.shared.hypernetworks == {"b": str(tmp_path / "more" / "b.safetensors")}


# The host's list


@every_host
def test_the_hosts_list_holds_all_types(fake_webui: FakeWebui) -> None:
    add(
        fake_webui.folder,
        "ink.pt",
        "sub/Night.safetensors",
        "a/twice.pt",
        "b/twice.ckpt",
        "None.pt",
    )
    folders.register()
    files = {
        "a/twice": "a/twice.pt",
        "b/twice": "b/twice.ckpt",
        "ink": "ink.pt",
        "Night": "sub/Night.safetensors",
    }
    assert fake_webui.shared.hypernetworks == {
        name: str(fake_webui.folder / file) for name, file in files.items()
    }
    assert list(fake_webui.shared.hypernetworks) == ["a/twice", "b/twice", "ink", "Night"]


@every_host
def test_refresh_sees_new_files(fake_webui: FakeWebui) -> None:
    folders.register()
    add(fake_webui.folder, "ink.pt")
    assert fake_webui.shared.hypernetworks == {}
    folders.refresh()
    assert list(fake_webui.shared.hypernetworks) == ["ink"]
    assert [entry.name for entry in folders.library().entries] == ["ink"]


@every_host
def test_the_default_folder_is_made(fake_webui: FakeWebui) -> None:
    folders.register()
    assert fake_webui.folder.is_dir()


def test_a_folder_that_can_not_be_made(fake_webui: FakeWebui) -> None:
    add(fake_webui.root, "models")
    folders.register()
    assert fake_webui.shared.hypernetworks == {}


@with_built_in
def test_a_reload_by_the_host_gives_the_same_list(fake_webui: FakeWebui) -> None:
    folders.register()
    add(fake_webui.folder, "ink.safetensors", "sub/ink.pt")
    fake_webui.shared.reload_hypernetworks()
    assert list(fake_webui.shared.hypernetworks) == ["ink", "sub/ink"]
    assert [entry.full_name for entry in folders.library().entries] == ["ink", "sub/ink"], (
        "and the library's"
    )


@with_built_in
def test_registering_twice_and_unregistering(fake_webui: FakeWebui) -> None:
    host = fake_webui.module("hypernetworks.hypernetwork")
    before = host.list_hypernetworks, host.Hypernetwork.load
    for _ in range(3):
        folders.register()
    assert host.list_hypernetworks._hypernetworks_original is before[0]
    assert host.Hypernetwork.load._hypernetworks_original is before[1]
    replacing.put_all_back()
    replacing.put_all_back()
    assert (host.list_hypernetworks, host.Hypernetwork.load) == before


@without_built_in
def test_unregistering_where_nothing_was_replaced(fake_webui: FakeWebui) -> None:
    folders.register()
    replacing.put_all_back()


def test_another_folder_is_the_hosts_own_business(fake_webui: FakeWebui, tmp_path: Path) -> None:
    folders.register()
    add(tmp_path / "other", "a.pt", "b.safetensors")
    host = fake_webui.module("hypernetworks.hypernetwork")
    assert host.list_hypernetworks(str(tmp_path / "other")) == {
        "a": str(tmp_path / "other" / "a.pt")
    }


def test_a_fault_of_ours_leaves_the_host_its_own_list(
    fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders.register()
    add(fake_webui.folder, "a.pt", "b.safetensors")
    monkeypatch.setattr(folders, "host_list", lambda: 1 / 0)
    fake_webui.shared.reload_hypernetworks()
    assert list(fake_webui.shared.hypernetworks) == ["a"]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_of_one_name_the_host_gets_the_file_that_it_can_read(fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.bin", "ink.pt", "ink.safetensors")
    folders.register()
    assert fake_webui.shared.hypernetworks == {"ink": str(fake_webui.folder / "ink.pt")}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text_are_left_out_of_the_hosts_list(fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.pt")
    Path(os.fsdecode(os.fsencode(fake_webui.folder) + b"/caf\xe9.pt")).touch()
    folders.register()
    assert list(fake_webui.shared.hypernetworks) == ["ink"]


# The built-in training


@with_built_in
def test_a_file_that_the_built_in_training_can_not_read(fake_webui: FakeWebui) -> None:
    folders.register()
    network_of_the_host = fake_webui.module("hypernetworks.hypernetwork").Hypernetwork()
    with pytest.raises(UnsupportedVariantError, match="python -m hypernetworks convert") as caught:
        network_of_the_host.load(str(fake_webui.folder / "ink.safetensors"))
    assert f'"{fake_webui.folder / "ink.pt"}"' in str(caught.value), "the command is complete"
    assert network_of_the_host.filename is None
    network_of_the_host.load(str(fake_webui.folder / "ink.pt"))
    assert network_of_the_host.filename == str(fake_webui.folder / "ink.pt")


# Hashes


@every_host
def test_a_hash_is_computed_once_and_shared_with_the_host(fake_webui: FakeWebui) -> None:
    path = network(fake_webui.folder / "sub" / "ink.pt")
    entry = folders.library().find("ink")
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert folders.known_hash(entry) is None
    assert folders.short_hash(entry) == expected[:10]
    assert folders.known_hash(entry) == folders.short_hash(entry) == expected[:10]
    theirs = fake_webui.module("hashes")
    assert theirs.read == [str(path)]
    assert theirs.sha256(str(path), "hypernet/ink") == expected
    assert theirs.read == [str(path)], "the built-in finds ours"


def test_without_hashing_there_is_none(fake_webui: FakeWebui) -> None:
    network(fake_webui.folder / "ink.pt")
    fake_webui.shared.cmd_opts.no_hashing = True
    assert folders.short_hash(folders.library().find("ink")) is None


def test_an_older_file_under_the_name_of_a_newer_one(fake_webui: FakeWebui) -> None:
    old = network(fake_webui.folder / "old.pt", seed=1)
    new = network(fake_webui.folder / "new.pt", seed=2)
    os.utime(old, (1_000_000, 1_000_000))
    folders.short_hash(folders.library().find("new"))
    expected = hashlib.sha256(old.read_bytes()).hexdigest()[:10]
    old.replace(new)
    folders.refresh()
    assert (
        fake_webui.module("hashes").sha256_from_cache(str(new), "hypernet/new")[:10] != expected
    ), "the host's habit"
    assert folders.known_hash(folders.library().find("new")) is None
    assert folders.short_hash(folders.library().find("new")) == expected


def test_files_of_one_stem_have_hashes_of_their_own(fake_webui: FakeWebui) -> None:
    paths = [
        network(fake_webui.folder / name, seed=i)
        for i, name in enumerate(("a/ink.pt", "b/ink.pt", "b/ink.ckpt"))
    ]
    for path in paths:
        os.utime(path, (1_000_000, 1_000_000))
    entries = folders.library().entries
    for _ in range(2):
        assert len({folders.short_hash(entry) for entry in entries}) == 3
    assert len(fake_webui.module("hashes").read) == 3


def test_a_file_that_is_gone_has_no_hash(fake_webui: FakeWebui) -> None:
    path = network(fake_webui.folder / "ink.pt")
    entry = folders.library().find("ink")
    path.unlink()
    assert folders.known_hash(entry) is None
    assert folders.short_hash(entry) is None


@every_host
def test_a_hash_that_was_begun_in_the_background_is_not_computed_again(
    fake_webui: FakeWebui,
) -> None:
    paths = [network(fake_webui.folder / f"{name}.pt", seed=i) for i, name in enumerate("ab")]
    entries = folders.library().entries
    for entry in entries * 2:
        folders.start_hash(entry)
    assert [folders.short_hash(e) for e in entries] == [
        hashlib.sha256(p.read_bytes()).hexdigest()[:10] for p in paths
    ]
    for entry in entries:
        folders.start_hash(entry)
    assert sorted(fake_webui.module("hashes").read) == sorted(map(str, paths))


def test_nothing_is_begun_without_hashing(
    fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch
) -> None:
    network(fake_webui.folder / "ink.pt")
    fake_webui.shared.cmd_opts.no_hashing = True
    monkeypatch.setattr(hashes, "_BACKGROUND", None)
    folders.start_hash(folders.library().find("ink"))


def test_the_cache_is_back_within_its_limit_when_a_job_is_over(
    fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made ready while the job ran has grown beyond it; also where the job fails."""
    for number, name in enumerate("ab"):
        network(fake_webui.folder / f"{name}.pt", seed=number)
    fake_webui.shared.opts.data[settings.CACHE_MB] = 1
    library, processing = folders.library(), fake_webui.module("processing")
    monkeypatch.setattr(hn.Hypernetwork, "prepared_bytes", 0)

    def job(p: Any) -> None:
        for used in [library.load(library.find(name)) for name in "ab"]:
            used.prepared_bytes = 1 << 20  # type: ignore[misc]
        assert library.loaded_bytes > 2 << 20
        if p.prompt == "fail":
            raise RuntimeError

    monkeypatch.setattr(processing, "process_images_inner", job)
    extra_network.register()
    processing.process_images_inner(processing.StableDiffusionProcessing("a"))
    assert 1 << 20 < library.loaded_bytes < 2 << 20, "the last one is kept in any case"
    with pytest.raises(RuntimeError):
        processing.process_images_inner(processing.StableDiffusionProcessing("fail"))
    assert 1 << 20 < library.loaded_bytes < 2 << 20
