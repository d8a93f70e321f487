"""Every key of an infotext is used or named: otherwise the page would claim to have restored
everything.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from unit.library.test_library import network

import hypernetworks as hn
from hypernetworks.prompts import parse_infotext
from hypernetworks.studio.generating import job_of
from hypernetworks.studio.ranges import RANGES
from hypernetworks.studio.restoring import Restored, read_infotext, restore
from hypernetworks.studio.windows import restored_fields

BASE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64, Model: mine"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> hn.Library:
    folder = tmp_path_factory.mktemp("networks")
    network(folder / "ink.pt", seed=1)
    network(folder / "pen.pt", seed=2)
    return hn.Library([folder])


def restored(library: hn.Library, settings: str, prompt: str = "a cat") -> Restored:
    return restore(f"{prompt}\n{settings}", library, "mine")


def told(found: Restored) -> str:
    return "\n".join(found.messages)


def test_all_that_is_known_is_used_without_a_word(library: hn.Library) -> None:
    found = restored(library, f"{BASE}, Version: v1.10.1", "a cat\nNegative prompt: ugly\nbad")
    assert found == Restored("a cat", "ugly\nbad", 20, 7.0, 5, "Euler a", 64, 64, hires=False)


@pytest.mark.parametrize(
    "settings",
    [
        "Clip skip: 2",
        "Hires upscale: 20",
        "Hires upscale: 2, Hires upscaler: Magic",
        "Hires upscaler: Latent",
        "Hires steps: 10",
        "Hires prompt: x",
        "Denoising strength: 0.5",
        "Variation seed: 3",
        "Variation seed strength: 0.5",
        "Refiner: sdxl_refiner",
        "Refiner switch at: 0.8",
        "VAE: other.pt",
        "VAE hash: 0123456789",
        "ENSD: 31337",
        "Eta: 0.3",
        "Tiling: True",
        "Face restoration: CodeFormer",
        "Schedule type: Uniform",
        "Mask blur: 4",
        "Lora hashes: 1234",
        'ControlNet 0: "Module: canny, Model: x"',
        "NGMS: 4",
        "something new: 1",
        "DPM++ SDE r: 0.3",
        "DPM++ 2M solver: heun",
        "Foo.bar: 3",
        "(odd) key: 1",
        "a key without a value",
        'quoted "in, the: key": 1',
        'half a " quote: 1',
    ],
)
def test_what_this_studio_cannot_do_is_named(library: hn.Library, settings: str) -> None:
    key, _, value = settings.rpartition(", ")[2].partition(": ")
    assert key in told(restored(library, f"{BASE}, {settings}")) or value.strip('"') in told(
        restored(library, f"{BASE}, {settings}")
    )


def test_a_hires_pass_is_restored(library: hn.Library) -> None:
    hires = "Denoising strength: 0.5, Hires upscale: 1.5, Hires upscaler: Lanczos"
    found = restored(library, f"{BASE}, {hires}")
    assert (found.hires, found.hires_scale, found.hires_strength) == (True, 1.5, 0.5)
    assert (found.upscaler, found.messages) == ("Lanczos", [])


@pytest.mark.parametrize("settings", ["Clip skip: 1", "Denoising strength: 1", "ENSD: 0"])
def test_values_that_change_nothing_are_not(library: hn.Library, settings: str) -> None:
    assert restored(library, f"{BASE}, {settings}").messages == []


@pytest.mark.parametrize(
    ("settings", "sampler", "words"),
    [
        ("Sampler: DPM++ 2M, Schedule type: Karras", "DPM++ 2M Karras", ""),
        ("Sampler: DPM++ 2M Karras", "DPM++ 2M Karras", ""),
        ("Sampler: Euler a, Schedule type: Automatic", "Euler a", ""),
        ("Sampler: Euler a, Schedule type: Beta", "Euler a", "Beta"),
        ("Sampler: Unheard of", None, "Unheard of"),
    ],
)
def test_samplers_with_their_schedule_type(
    library: hn.Library, settings: str, sampler: str | None, words: str
) -> None:
    rest = BASE.replace("Sampler: Euler a", settings)
    found = restored(library, rest)
    assert found.sampler == sampler
    assert words in told(found)
    assert bool(found.messages) == bool(words)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Seed", str(2**63)),
        ("Seed", str(2**64 - 1)),
        ("Seed", str(2**53)),  # browsers would round the next one to it
        ("Seed", "-1"),
        ("Steps", "5000"),
        ("Steps", "x"),
        ("CFG scale", "100.5"),
        ("Size", "64x5000"),
        ("CFG scale", "1e9"),
        ("Size", "big"),
        ("Size", "64x64x64"),
    ],
)
def test_values_that_cannot_be_used_are_named(library: hn.Library, key: str, value: str) -> None:
    settings = re.sub(rf"{key}: [^,]+", f"{key}: {value}", BASE)
    found = restored(library, settings)
    assert f"{key}: {value} can't be used here (" in told(found)


@pytest.mark.parametrize(
    "settings",
    [
        "Steps: 200, CFG scale: 30, Seed: 9007199254740991, Size: 4096x8",
        "Steps: 1000, CFG scale: 0, Seed: 0, Size: 64x64, Denoising strength: 0.04",
        "Steps: 1, CFG scale: 100, Seed: 1, Size: 8x8, Denoising strength: 0.01, Hires upscale: 4",
    ],
)
def test_what_is_restored_can_be_generated_and_survives_a_reload(
    library: hn.Library, settings: str
) -> None:
    found = restored(library, f"Sampler: Euler a, {settings}")
    fields = {name: getattr(found, name) for name in RANGES if name != "batch"}
    used = {name: value for name, value in fields.items() if value is not None}
    assert len(used) >= 5
    job = job_of(found.prompt, "", sampler=found.sampler, batch=1, hires=found.hires, **fields)
    assert (job.steps, job.cfg, job.seed) == (found.steps, found.cfg, found.seed)
    assert restored_fields({"fields": used, "model": "m"}, "m", []) == used


def test_settings_that_are_missing_are_named(library: hn.Library) -> None:
    found = restored(library, "Steps: 20, Seed: 5, Size: 64x64")
    assert "CFG scale" in told(found)
    assert "Sampler" in told(found)
    assert "no settings" in told(restore("just words", library, "mine"))


@pytest.mark.parametrize(
    ("settings", "prompt"),
    [
        ("Hypernet: ink, Hypernet strength: 0.7", "a cat <hypernet:ink:0.7>"),
        ("Hypernet: ink", "a cat <hypernet:ink:1>"),
        ("Hypernet: None", "a cat"),
    ],
)
def test_old_keys_become_a_tag(library: hn.Library, settings: str, prompt: str) -> None:
    found = restored(library, f"{BASE}, {settings}")
    assert (found.prompt, found.messages) == (prompt, [])


def test_a_renamed_file_is_found_by_its_hash_and_said(library: hn.Library) -> None:
    sha = library.find("pen").sha256()[:10]
    found = restored(library, f'{BASE}, Hypernet hashes: "old: {sha}"', "a <hypernet:old:0.5>")
    assert found.prompt == "a <hypernet:pen:0.5>"
    assert '"pen"' in told(found)


def test_a_file_that_is_another_one_now_is_said(library: hn.Library) -> None:
    found = restored(library, f'{BASE}, Hypernet hashes: "ink: 0123456789"', "a <hypernet:ink>")
    assert "differs" in told(found)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends(library: hn.Library, newline: str) -> None:
    text = newline.join(["a cat", "in rain", "Negative prompt: ugly", BASE])
    found = restore(text, library, "mine")
    assert (found.prompt, found.negative, found.steps) == ("a cat\nin rain", "ugly", 20)


@pytest.mark.parametrize(
    "line",
    [
        "Template: a {cat|dog}",
        "Negative Template: b",
        'Civitai resources: [{"type":"checkpoint","air":"x, y: z"}]',
        "Wildcard prompt: __animal__, x: y",
        "a line that is no pair",
        '{"json": true}',
    ],
)
def test_lines_after_the_settings_are_named_or_harmless(library: hn.Library, line: str) -> None:
    found = restored(library, f"{BASE}\n{line}")
    assert (found.prompt, found.steps, found.seed) == ("a cat", 20, 5)
    harmless = line.startswith(("Template", "Negative Template"))
    assert (line.partition(":")[0] in told(found)) != harmless


def test_json_among_the_settings(library: hn.Library) -> None:
    resources = '[{"type":"lora","weight":0.5,"name":"a, b: c"},{"x":{"y":[1,2]}}]'
    found = restored(library, f"{BASE}, Civitai resources: {resources}, Clip skip: 2")
    assert found.seed == 5
    assert "Civitai resources" in told(found)
    assert "Clip skip: 2" in told(found)
    assert parse_infotext(f"a\n{BASE}, Extra: {resources}, Other: 1")[2]["Extra"] == resources


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_the_user_comment_of_jpeg_and_webp(tmp_path: Path, encoding: str, suffix: str) -> None:
    text = f"ein Apfel, 猫 <hypernet:ink:1>\n{BASE}"
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode(encoding)
    path = tmp_path / f"x.{suffix}"
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    assert read_infotext(path) == text


keys = st.from_regex(r"[A-Z][a-z]{2,8}( [a-z]{2,6})?", fullmatch=True)
values = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=20)


@settings(max_examples=25)
@given(pairs=st.dictionaries(keys, values, min_size=1, max_size=4))
def test_any_other_key_is_named(pairs: dict[str, str], library: hn.Library) -> None:
    text = hn.prompts.format_infotext("a", "", {"Steps": 20, "Seed": 5, "Size": "64x64", **pairs})
    found = restore(text, library, "mine")
    known = parse_infotext("a\n" + BASE)[2].keys() | {"Version", "User", "Template", "Hypernet"}
    for key in pairs.keys() - known:
        assert key in told(found)
