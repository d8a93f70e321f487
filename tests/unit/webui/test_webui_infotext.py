"""Hashes in the infotext, and pasting: renamed files, old infotexts, and that a large library costs
no time."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_webui import HOSTS, FakeWebui
from hypothesis import given
from hypothesis import strategies as st
from unit.library.test_library import add, network

import hypernetworks as hn
from hypernetworks.engine.multiplier import Multiplier
from hypernetworks.hosts.infotext import HASHES, LineOfImages, hashes_line
from hypernetworks.hosts.resolving import Use
from hypernetworks.hosts.webui import extra_network, folders, infotext
from hypernetworks.hosts.webui.batch import Batch
from hypernetworks.prompts import Tag
from hypernetworks.prompts.infotext import (
    format_hashes,
    format_infotext,
    parse_hashes,
    parse_infotext,
)
from hypernetworks.prompts.rewriting import rewrite_tags

every_host = pytest.mark.parametrize("fake_webui", HOSTS, indirect=True)
names = st.text(st.characters(exclude_characters=":>", exclude_categories=["Cs"]), min_size=1)


def sha(path: Path) -> str:
    """The hash that an infotext shows."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:10]


def early(path: Path) -> str:
    """The hash that infotexts showed until January 2023; the file needs more than 1 MiB."""
    content = path.read_bytes()[1 << 20 : (1 << 20) + (1 << 16)]
    assert content
    return hashlib.sha256(content).hexdigest()[:8]


def large(path: Path, seed: int) -> Path:
    """A file with something behind its first MiB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(1 << 20) + str(seed).encode() * 100)
    return path


def pasted(webui: FakeWebui, prompt: str, **pairs: object) -> dict[str, str]:
    """What the host has in its fields after an infotext was pasted."""
    text = format_infotext(prompt, "ugly", {"Steps": 20, "Seed": 1, "Size": "512x512", **pairs})
    params = webui.module("infotext_utils").parse_generation_parameters(text)
    callbacks = webui.module("script_callbacks")
    callbacks.callback_map.clear()
    callbacks.on_infotext_pasted(infotext.on_pasted)
    callbacks.infotext_pasted_callback(text, params)
    assert webui.module("errors").reported == []
    return params  # type: ignore[no-any-return]


# The line of hashes


@given(st.dictionaries(names, st.text("0123456789abcdef", min_size=10, max_size=10)))
def test_every_name_survives_the_line_of_hashes(hashes: dict[str, str]) -> None:
    assert parse_hashes(format_hashes(hashes)) == hashes


@pytest.mark.parametrize(
    ("text", "hashes"),
    [
        ("", {}),
        ("ink: 0123456789", {"ink": "0123456789"}),
        (
            "ink: 0123456789, my, style: 63a0e9f701",
            {"ink": "0123456789", "my, style": "63a0e9f701"},
        ),
        ("ink", {}),
        ("ink: nonsense, other: 0123456789", {}),
        ("ink: 0123456789, rest", {"ink": "0123456789"}),
        ("ink: ABCDEF0123", {}),
    ],
)
def test_reading_lines_of_hashes(text: str, hashes: dict[str, str]) -> None:
    assert parse_hashes(text) == hashes


def test_lines_of_hashes_take_no_time() -> None:
    began = time.monotonic()
    assert parse_hashes("a, " * 20_000) == {}
    assert parse_hashes("x: 0123456789" * 5_000) == {}
    assert time.monotonic() - began < 20  # the machine may be busy


@pytest.mark.parametrize(
    "name", ["ink", "a, b", 'the "ink"', "a\\b", "夏の絵", "x=1", "[x] (y)", "it's", "<b"]
)
def test_the_line_survives_the_hosts_infotext(name: str, fake_webui: FakeWebui) -> None:
    utilities = fake_webui.module("infotext_utils")
    line = format_hashes({name: "0123456789", "other": "63a0e9f701"})
    text = (
        f"a cat\nNegative prompt: ugly\nSteps: 20, Hypernet hashes: {utilities.quote(line)}, "
        "Seed: 1"
    )
    for read in (utilities.parse_generation_parameters(text), parse_infotext(text)[2]):
        assert read["Seed"] == "1"
        assert parse_hashes(read[HASHES]) == {name: "0123456789", "other": "63a0e9f701"}


@every_host
def test_the_line_of_a_picture(fake_webui: FakeWebui) -> None:
    paths = [
        network(fake_webui.folder / name, seed=i)
        for i, name in enumerate(("a/x.pt", "b/x.pt", "sub/ink.pt"))
    ]
    line = hashes_line(
        folders.library(),
        [folders.library().find(name) for name in ("ink", "b/x", "ink")],
        folders.short_hash,
    )
    assert line == f"ink: {sha(paths[2])}, b/x: {sha(paths[1])}"
    fake_webui.shared.cmd_opts.no_hashing = True
    assert hashes_line(folders.library(), [folders.library().find("a/x")], folders.short_hash) == ""


def test_each_image_of_a_mixed_batch_names_its_own() -> None:
    line = LineOfImages(
        "ink: 0123456789, oil: 63a0e9f701", ["ink: 0123456789", "", "oil: 63a0e9f701"]
    )
    context = {"p": None, "position_in_batch": 0, "iteration": 0}  # a part of the host's locals
    assert [line(index=i, use_main_prompt=False, **context) for i in range(4)] == [
        "ink: 0123456789",
        None,
        "oil: 63a0e9f701",
        "ink: 0123456789",
    ]
    assert line(index=0, use_main_prompt=True, **context) == str(line)
    assert json.loads(json.dumps({"x": line})) == {"x": "ink: 0123456789, oil: 63a0e9f701"}
    assert (
        copy.deepcopy(line)(index=2) == pickle.loads(pickle.dumps(line))(index=2) == line(index=2)
    )


def test_a_mixed_batch_writes_a_line_of_images(fake_webui: FakeWebui) -> None:
    for seed, name in enumerate(("ink", "oil")):
        network(fake_webui.folder / f"{name}.pt", seed=seed)
    folders.refresh()
    uses = {}
    for name in ("ink", "oil"):
        tag, entry = Tag((name,)), folders.library().find(name)
        uses[name] = Use(tag, entry, folders.library().load(entry), Multiplier.of(1))
    ink, oil = uses["ink"], uses["oil"]

    def lines(first: list[list[Use]], hires: list[list[Use]]) -> list[list[str]] | str:
        p = SimpleNamespace(extra_generation_params={})
        extra_network._write_hashes(p, Batch(first, hires))
        line = p.extra_generation_params.get(HASHES, "")
        images = max(len(first), len(hires))
        if not callable(line):
            return str(line)
        return [list(parse_hashes(line(index=i) or "")) for i in range(images)]

    assert lines([[ink], [oil], []], []) == [["ink"], ["oil"], []]
    assert lines([[ink], [ink]], [[ink], [oil]]) == [["ink"], ["ink", "oil"]]
    assert isinstance(lines([[ink], [ink]], []), str)
    assert lines([[], []], []) == ""


# Rewriting tags


def test_rewriting_leaves_every_other_byte() -> None:
    prompt = (
        "a <hypernet:ink:0.70:hr=.5>,\t<lora:x:1><hypernet: odd name :0@0;1@1> "
        "[b:<hypernet:c>:0.5] <hypernet>\n"
    )
    assert rewrite_tags(prompt, lambda tag: tag) == prompt
    assert rewrite_tags(prompt, lambda _: None) == "a ,\t<lora:x:1> [b::0.5] <hypernet>\n"
    assert rewrite_tags(prompt, lambda tag: tag.with_name("n")) == (
        "a <hypernet:n:0.70:hr=.5>,\t<lora:x:1><hypernet:n:0@0;1@1> [b:<hypernet:n>:0.5] "
        "<hypernet>\n"
    )


@given(st.lists(st.sampled_from(["<hypernet:", "<lora:", *"a:>[]= 1\n"])).map("".join))
def test_rewriting_with_no_change_is_the_identity(prompt: str) -> None:
    assert rewrite_tags(prompt, lambda tag: tag) == prompt
    without, clean = rewrite_tags(prompt, lambda _: None), hn.parse(prompt)[0]
    assert without.replace(" ", "") == clean.replace(" ", "")
    assert len(without) <= len(clean)


@pytest.mark.parametrize(
    ("prompt", "without"),
    [
        ("a <hypernet:x> <hypernet:y> b", "a b"),
        ("<hypernet:x><hypernet:y> b", "b"),
        ("<hypernet:x>", ""),
        ("a  <hypernet:x>  b", "a   b"),
        ("a\n<hypernet:x> b", "a\nb"),
        ("a<hypernet:x>b", "ab"),
    ],
)
def test_a_tag_that_goes_leaves_no_blank_behind(prompt: str, without: str) -> None:
    assert rewrite_tags(prompt, lambda _: None) == without


# Pasting


@every_host
def test_tags_of_files_that_are_here_stay_as_they_are(fake_webui: FakeWebui) -> None:
    network(fake_webui.folder / "sub" / "ink.pt")
    network(fake_webui.folder / "kept(0123456789).pt")
    prompt = (
        "a <hypernet:ink:0.70:k=1> <hypernet:sub/INK> <hypernet:kept(0123456789)> cat <lora:ink:1>"
    )
    params = pasted(fake_webui, prompt, **{"Hypernet hashes": "ink: 0000000000"})
    assert params["Prompt"] == prompt
    assert fake_webui.module("hashes").read == [], "nothing is hashed for names that are here"


@every_host
@pytest.mark.parametrize("hashed_before", [False, True])
def test_a_renamed_file_is_found(hashed_before: bool, fake_webui: FakeWebui) -> None:
    network(fake_webui.folder / "other.pt", seed=1)
    path = network(fake_webui.folder / "styles" / "Ink v2 (final).safetensors", seed=2)
    if hashed_before:
        folders.short_hash(folders.library().find("Ink v2 (final)"))
    params = pasted(
        fake_webui,
        "a <hypernet:ink:0.7:hr=0.4> cat <hypernet:ink:1> <hypernet:other>",
        **{
            "Hires prompt": "b <hypernet:ink:0.3>",
            "Hypernet hashes": f"ink: {sha(path)}, other: 0000000000",
        },
    )
    assert params["Prompt"] == (
        "a <hypernet:Ink v2 (final):0.7:hr=0.4> cat <hypernet:Ink v2 (final):1> <hypernet:other>"
    )
    assert params["Hires prompt"] == "b <hypernet:Ink v2 (final):0.3>"


@pytest.mark.parametrize("written", ["sub/ink", "INK", " ink ", "ink"])
@pytest.mark.parametrize("listed", ["ink", "sub/ink", "Ink"])
def test_the_hash_is_found_however_the_tag_wrote_the_name(
    written: str, listed: str, fake_webui: FakeWebui
) -> None:
    path = network(fake_webui.folder / "new.pt")
    params = pasted(
        fake_webui, f"<hypernet:{written}:0.5>", **{"Hypernet hashes": f"{listed}: {sha(path)}"}
    )
    assert params["Prompt"] == "<hypernet:new:0.5>"


def test_of_several_files_with_one_stem_the_hash_picks(fake_webui: FakeWebui) -> None:
    network(fake_webui.folder / "a" / "ink.pt", seed=1)
    path = network(fake_webui.folder / "b" / "ink.pt", seed=2)
    params = pasted(fake_webui, "<hypernet:ink:1>", **{"Hypernet hashes": f"ink: {sha(path)}"})
    assert params["Prompt"] == "<hypernet:b/ink:1>"


def test_a_file_that_came_after_the_last_refresh(fake_webui: FakeWebui) -> None:
    folders.register()
    path = network(fake_webui.folder / "new.pt")
    network(fake_webui.folder / "here.pt", seed=1)
    assert pasted(fake_webui, "<hypernet:here(e3b0c442)>")["Prompt"] == "<hypernet:here>"
    params = pasted(fake_webui, "<hypernet:ink:1>", **{"Hypernet hashes": f"ink: {sha(path)}"})
    assert params["Prompt"] == "<hypernet:new:1>"
    assert list(fake_webui.shared.hypernetworks) == ["here", "new"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_no_tag_can_hold(fake_webui: FakeWebui) -> None:
    path = network(fake_webui.folder / "new: style.pt")
    params = pasted(fake_webui, "<hypernet:ink:1>", **{"Hypernet hashes": f"ink: {sha(path)}"})
    assert params["Prompt"] == "<hypernet:ink:1>"


def test_a_file_that_is_nowhere_leaves_the_tag(fake_webui: FakeWebui) -> None:
    network(fake_webui.folder / "other.pt")
    params = pasted(fake_webui, "<hypernet:ink:1>", **{"Hypernet hashes": "ink: 0123456789"})
    assert params["Prompt"] == "<hypernet:ink:1>"
    assert pasted(fake_webui, "<hypernet:ink:1>")["Prompt"] == "<hypernet:ink:1>"


def test_without_hashing_nothing_is_read(fake_webui: FakeWebui) -> None:
    path = network(fake_webui.folder / "new.pt")
    fake_webui.shared.cmd_opts.no_hashing = True
    params = pasted(fake_webui, "<hypernet:ink:1>", **{"Hypernet hashes": f"ink: {sha(path)}"})
    assert params["Prompt"] == "<hypernet:ink:1>"
    assert fake_webui.module("hashes").read == []


def test_what_a_picture_says_leads_back_to_its_files(fake_webui: FakeWebui) -> None:
    for number, name in enumerate(('a, "b" [c].pt', "sub/夏の絵.safetensors")):
        network(fake_webui.folder / name, seed=number)
    prompt = 'x <hypernet:a, "b" [c]:0.5> <hypernet:夏の絵>'
    line = hashes_line(
        folders.library(),
        [folders.library().find(tag.name) for tag in hn.parse(prompt)[1]],
        folders.short_hash,
    )
    (fake_webui.folder / 'a, "b" [c].pt').rename(fake_webui.folder / "b.pt")
    (fake_webui.folder / "sub" / "夏の絵.safetensors").rename(
        fake_webui.folder / "summer.safetensors"
    )
    assert pasted(fake_webui, prompt, **{"Hypernet hashes": line})["Prompt"] == (
        "x <hypernet:b:0.5> <hypernet:summer>"
    )


# Old infotexts


@every_host
@pytest.mark.parametrize(
    ("pairs", "tag"),
    [
        ({"Hypernet": "anime_3"}, "<hypernet:anime_3:1{}>"),
        ({"Hypernet": "anime_3", "Hypernet strength": "0.6"}, "<hypernet:anime_3:0.6>"),
        ({"Hypernet": "anime_3(e3b0c442)", "Hypernet strength": "0.6"}, "<hypernet:anime_3:0.6>"),
        ({"Hypernet": "gone", "Hypernet hash": "63a0e9f7"}, "<hypernet:gone:1{}>"),
    ],
)
def test_old_infotexts_become_tags_once(
    pairs: dict[str, str], tag: str, fake_webui: FakeWebui
) -> None:
    network(fake_webui.folder / "anime_3.pt")
    params = pasted(fake_webui, "a cat", **pairs)
    does_it_itself = fake_webui.host in ("a1111", "forge", "reforge")
    assert params["Prompt"] == ("a cat" if does_it_itself else "a cat ") + tag.format(
        ".0" if does_it_itself else ""
    )
    once = dict(params)
    infotext.on_pasted("", params)
    assert params == once, "two copies of the extension do it once"


@every_host
def test_the_early_hash_finds_a_renamed_file(fake_webui: FakeWebui) -> None:
    large(fake_webui.folder / "anime_2.pt", 1)
    path = large(fake_webui.folder / "my anime.pt", 2)
    add(fake_webui.folder, "small.pt")
    expected = "<hypernet:my anime:0.6>"
    for pairs in (
        {"Hypernet": "anime_3", "Hypernet hash": early(path)},
        {"Hypernet": f"anime_3({early(path)})"},
    ):
        assert pasted(fake_webui, "a", **pairs, **{"Hypernet strength": "0.6"})["Prompt"] in (
            f"a{expected}",
            f"a {expected}",
        )
    assert (
        pasted(fake_webui, f"a <hypernet:anime_3({early(path)}):0.6>")["Prompt"] == f"a {expected}"
    )


def test_small_files_do_not_share_an_early_hash(fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "small.pt")
    empty = hashlib.sha256(b"").hexdigest()[:8]
    assert pasted(fake_webui, f"<hypernet:ink({empty})>")["Prompt"] == f"<hypernet:ink({empty})>"
    assert folders.library().find("small").early_hash() is None


def test_a_name_with_a_hash_of_today(fake_webui: FakeWebui) -> None:
    path = network(fake_webui.folder / "new.pt")
    assert pasted(fake_webui, f"<hypernet:ink({sha(path)}):1>")["Prompt"] == "<hypernet:new:1>"
    assert pasted(fake_webui, f"<hypernet:new({sha(path)}):1>")["Prompt"] == "<hypernet:new:1>"


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"Prompt": None, "Hypernet": "ink"},
        {"Prompt": "a", "Hypernet": "None"},
        {"Prompt": "a", "Hypernet hashes": 7},
        {"Prompt": "a", "Hires prompt": 0},
    ],
)
def test_fields_that_are_missing_or_strange(
    params: dict[str, object], fake_webui: FakeWebui
) -> None:
    before = dict(params)
    infotext.on_pasted("", params)
    assert params == before


def test_numbers_where_sdnext_makes_some(fake_webui: FakeWebui) -> None:
    params: dict[str, object] = {
        "Prompt": "a",
        "Hypernet": 123,
        "Hypernet hash": 1234567,
        "Hypernet strength": 0.5,
    }
    infotext.on_pasted("", params)
    assert params["Prompt"] == "a <hypernet:123:0.5>"


# Time


class Clock:
    """Seconds pass as files are hashed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, webui: FakeWebui, seconds: float) -> None:
        self.now = 0.0
        self.hashes = webui.module("hashes")
        original = self.hashes.calculate_sha256
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

        def calculate(filename: str) -> object:
            self.now += seconds
            return original(filename)

        monkeypatch.setattr(self.hashes, "calculate_sha256", calculate)


def test_a_search_ends_in_time_and_goes_on_next_time(
    fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        network(fake_webui.folder / f"{number}.pt", seed=number)
    path = network(fake_webui.folder / "zzz.pt", seed=99)
    clock = Clock(monkeypatch, fake_webui, seconds=0.5)
    wanted = {"Hypernet hashes": f"abc: {sha(path)}"}
    read = clock.hashes.read
    assert pasted(fake_webui, "<hypernet:abc>", **wanted)["Prompt"] == "<hypernet:abc>"
    assert len(read) == 5
    assert "try again to continue" in capsys.readouterr().err
    for _ in range(2):
        prompt = pasted(fake_webui, "<hypernet:abc>", **wanted)["Prompt"]
    assert prompt == "<hypernet:zzz>"
    assert len(read) == len(set(read)) == 13, "no file twice"


def test_similar_names_come_first(fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        network(fake_webui.folder / f"aa{number}.pt", seed=number)
    path = network(fake_webui.folder / "watercolour-ink-v2.pt", seed=99)
    clock = Clock(monkeypatch, fake_webui, seconds=9)
    params = pasted(fake_webui, "<hypernet:ink-v1>", **{"Hypernet hashes": f"ink-v1: {sha(path)}"})
    assert params["Prompt"] == "<hypernet:watercolour-ink-v2>"
    assert clock.hashes.read == [str(path)], "however slow the disk is, one file is tried"


def test_five_thousand_files(fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, *(f"{number:04}.pt" for number in range(5000)))
    record = fake_webui.module("hashes").cache("hashes")
    for number in range(5000):
        modified = os.stat(fake_webui.folder / f"{number:04}.pt").st_mtime  # noqa: PTH116
        record[f"hypernet/{number:04}"] = {"mtime": modified, "sha256": f"{number:064x}"[::-1]}
    wanted = f"{4321:064x}"[::-1][:10]
    folders.library().scan()
    began = time.monotonic()
    assert (
        pasted(fake_webui, "<hypernet:ink>", **{"Hypernet hashes": f"ink: {wanted}"})["Prompt"]
        == "<hypernet:4321>"
    )
    assert time.monotonic() - began < 20  # the machine may be busy
    assert fake_webui.module("hashes").read == []
