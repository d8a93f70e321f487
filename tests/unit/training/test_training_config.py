"""Configurations, prompt files and event files: what is written is read, here and by others."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hypernetworks.cli import _parser
from hypernetworks.cli.train import _job
from hypernetworks.cli.train_config import configured
from hypernetworks.errors import TrainingDataError, TrainingSettingsError
from hypernetworks.hosts.diffusers.training import TrainingJob, preset_job
from hypernetworks.hosts.diffusers.training.config import config_of
from hypernetworks.hosts.diffusers.training.told import told_of
from hypernetworks.training import TrainingStep
from hypernetworks.training.prompts import Preview, parse_preview, read_prompts
from hypernetworks.training.sources import Source
from hypernetworks.training.tensorboard import Events
from hypernetworks.training.toml import Reader, parse_toml, read_toml, write_toml

PAINTER: Any = SimpleNamespace(default_size=512, size_step=8, is_miniature=False)
KOHYA = """
[general]
shuffle_caption = true
caption_extension = ".txt"
keep_tokens = 1
bucket_no_upscale = false

[[datasets]]
resolution = [512, 768]
batch_size = 4
enable_bucket = true

  [[datasets.subsets]]
  image_dir = 'C:\\train\\cats'
  num_repeats = 10
  class_tokens = "a cat"

  [[datasets.subsets]]
  image_dir = "regular"
  is_reg = true
  keep_tokens = 2  # of its own
"""


def jobs(*typed: str) -> list[TrainingJob]:
    """What a command line asks for."""
    options = _parser().parse_args(["train", *typed])
    return [_job(own, PAINTER) for own in configured(options, typed)]


def written(folder: Path, text: str, name: str = "c.toml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_run_is_repeated_from_its_own_file(tmp_path: Path) -> None:
    typed = [
        "cats", str(tmp_path / "own"), str(tmp_path / "more"), "--repeats", "10,1", "--weights", "1,0.5",
        "--prior", str(tmp_path / "prior"), "--batch", "4", "--rate", "1e-4:500, 1e-5", "--min-snr", "5",
        "--optimiser", "AdamW", "--option", "betas=(0.9,0.95)", "--size", "512x768", "--buckets", "--flip",
        "--layers", "1,2,2,1", "--activation", "swish", "--dropout", "0,0.1,0.2,0", "--random-last",
        "--preview", 'a "quoted" cat --n dark --d 7', "--trigger", "zwx", "--format", "safetensors",
        "--loss", "huber", "--runs", str(tmp_path / "runs"), "--tensorboard", "--caption-dropout", "0.2",
    ]  # fmt: skip
    (job,) = jobs(*typed)
    file = written(tmp_path, config_of(job, None))
    assert jobs("--config", file) == [job]
    (changed,) = jobs("--config", file, "--batch", "8", "--steps", "50")
    assert (changed.settings.batch, changed.settings.steps) == (8, 50)
    (other,) = jobs("dogs", str(tmp_path), "--config", file)
    assert (other.name, other.all_sources()[0].path) == ("dogs", tmp_path)
    assert other.settings == job.settings


@pytest.mark.parametrize(
    ("text", "typed", "expected"),
    [
        ("", (), False),
        ("", ("--self-attention",), True),
        ("text_only = false", (), True),  # as older versions wrote it
        ("text_only = true", ("--self-attention",), True),
        ("self_attention = true", (), True),
        ("self_attention = true", ("--text-only",), False),
    ],
)
def test_a_small_network_for_self_attention(
    tmp_path: Path, text: str, typed: tuple[str, ...], expected: bool
) -> None:
    file = written(tmp_path, f'name = "a"\npictures = "x"\npreset = "small"\n{text}\n')
    (job,) = jobs("--config", file, *typed)
    assert job.creation.self_attention is expected


@pytest.mark.parametrize("typed", ["--text-only", "--self-attention", "--random-last"])
def test_a_network_that_goes_on_keeps_its_structure(typed: str) -> None:
    with pytest.raises(TrainingSettingsError, match=f"so {typed} would have no effect"):
        jobs("a", "x", "--network", "n.pt", typed)


def test_options_between_name_and_folders_count_before_a_file(tmp_path: Path) -> None:
    file = written(tmp_path, 'name = "a"\npictures = ["x"]\nsteps = 9\n')
    (job,) = jobs("dogs", "--config", file, "--steps", "2", "y", "--flip", "z")
    assert (job.name, job.settings.steps, job.picture_settings.flip) == ("dogs", 2, True)
    assert [source.path for source in job.all_sources()] == [Path("y"), Path("z")]


def test_what_is_typed_counts_before_what_folders_say(tmp_path: Path) -> None:
    text = (
        'name = "a"\n[[folders]]\npath = "x"\nrepeats = 3\nflip = true\ncrops = 2\n'
        '[[folders]]\npath = "old"\nprior = true\nflip = true\n[[folders]]\npath = "y"\n'
    )
    file = written(tmp_path, text)
    typed = ["--repeats", "7,2", "--weights", "0.5,1", "--masks", "m", "--crops", "4"]
    (job,) = jobs("--config", file, *typed)
    assert job.all_sources() == (
        Source(Path("x"), 7, 0.5, Path("m"), changes={"flip": True}),
        Source(Path("old"), is_prior=True, changes={"flip": True}),
        Source(Path("y"), 2, masks=Path("m")),
    )
    assert job.picture_settings.crops == 4
    with pytest.raises(
        TrainingSettingsError, match="2 folders, those of `prior` aside, but 3 repeats"
    ):
        jobs("--config", file, "--repeats", "1,2,3")


def test_a_file_has_masks_for_all_its_folders(tmp_path: Path) -> None:
    text = (
        'name = "a"\nmasks = "m"\n[[folders]]\npath = "x"\n[[folders]]\npath = "y"\nmasks = "own"\n'
        '[[folders]]\npath = "old"\nprior = true\n'
    )
    (job,) = jobs("--config", written(tmp_path, text))
    assert [source.masks for source in job.all_sources()] == [Path("m"), Path("own"), None]


@pytest.mark.parametrize("preset", ["style", "subject", "small"])
def test_presets_are_repeated_too(tmp_path: Path, preset: str) -> None:
    job = preset_job(preset, "a", tmp_path.resolve(), PAINTER, runs=tmp_path.resolve())
    (found,) = jobs("--config", written(tmp_path, config_of(job, None)))
    assert found.settings == job.settings
    assert found.creation == job.creation
    assert found.picture_settings == job.picture_settings
    # Steps by the number of images are bounded by those of the preset.
    (by_images,) = jobs("a", str(tmp_path), "--preset", preset)
    (again,) = jobs("--config", written(tmp_path, config_of(by_images, None)))
    assert again.steps_by_images
    assert again.settings.steps == job.settings.steps


def test_a_runs_own_file_can_be_used_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = '[[folders]]\npath = "x"\nmasks = "m"\ntemplate = "own.txt"\n'
    typed = ["--captioner", "blip", "--cache", "kept", "--template", "lines.txt"]
    (job,) = jobs("a", "--config", written(tmp_path, f'network = "n.pt"\n{text}'), *typed)
    # What is typed counts before what a folder says, so that one is asked for on its own.
    (folder,) = jobs("a", "--config", str(tmp_path / "c.toml"))
    files = [
        written(tmp_path, config_of(j, None), f"{i}.toml") for i, j in enumerate((job, folder))
    ]

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found, other = jobs("--config", files[0], "--config", files[1])
    assert (found.captioner, found.cache) == (tmp_path / "blip", tmp_path / "kept")
    assert found.picture_settings.template == str(tmp_path / "lines.txt")
    assert other.all_sources()[0].changes == {"template": str(tmp_path / "own.txt")}
    assert (other.network, other.captioner) == (tmp_path / "n.pt", None)


def test_a_queue_of_runs(tmp_path: Path) -> None:
    text = 'pictures = ["x"]\nbatch = 2\n[[runs]]\nname = "a"\n[[runs]]\nname = "b"\nlr = 1e-3\n'
    first, second = jobs("--config", written(tmp_path, text))
    assert (first.name, second.name, second.settings.rate) == ("a", "b", "0.001")
    assert first.settings.batch == second.settings.batch == 2
    more = written(tmp_path, 'name = "c"\npictures = "x"\n', "d.toml")
    assert [job.name for job in jobs("--config", str(tmp_path / "c.toml"), "--config", more)] == [
        "a", "b", "c",
    ]  # fmt: skip


def test_datasets_of_kohya(tmp_path: Path) -> None:
    (job,) = jobs("cats", "--config", written(tmp_path, KOHYA))
    size = job.picture_settings
    assert (size.width, size.height, size.fit, job.settings.batch) == (512, 768, "buckets", 4)
    own, regular = job.all_sources()
    assert own == Source(
        Path("C:\\train\\cats"), 10, words="a cat", changes={"shuffle": True, "keep_tokens": 1}
    )
    assert (regular.is_prior, regular.changes["keep_tokens"]) == (True, 2)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("speed = 3", "no option speed"),
        ("batch = true", "a text, a number"),
        ('batch = "four"', "batch = 'four'"),
        ("flip = 1", "true or false"),
        ('format = "exe"', "invalid choice"),
        ("batch = ", "can't be read as TOML"),
        ("[[folders]]\nrepeats = 2", "needs a path"),
        ('[[folders]]\npath = "a"\nwidth = 3', "can't have width"),
        ('repeats = [2]\n[[folders]]\npath = "a"', "repeats beside .* write repeats = …"),
        ('weights = [2]\n[[folders]]\npath = "a"', "weight beside .* write weight = …"),
        ('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"\nrandom_crop = true', "random_crop"),
        (
            '[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = "a"\n'
            '[[datasets]]\nresolution = 768\n[[datasets.subsets]]\nimage_dir = "b"',
            "several values of size",
        ),
    ],
)
def test_wrong_configurations_say_what_is_wrong(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(TrainingSettingsError, match=match):
        jobs("a", "--config", written(tmp_path, text))


TOML = """
# a comment
a = 1
b.c = -2.5e-3 # another
"d e" = 'C:\\x'
[t.u]
s = "tab\\t \\u00e9 \\"q\\""
list = [1, [2, 3],
  "x", # inside
]
[[rows]]
x = {y = true, z = []}
[[rows]]
big = 1_000
[rows.sub]
n = inf
"""


@pytest.mark.parametrize("text", [TOML, KOHYA, "", "x = 'é'\r\ny = 2\r\n", "a.b = 1\na.c = 2\n"])
def test_our_reader_of_toml_agrees_with_pythons(text: str) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("this Python has none")
    assert Reader(text).read() == parse_toml(text)


@pytest.mark.parametrize(
    "text", ["a = ", "a = 1 b = 2", "a = 1\na = 2", "[a", "a = [1", "= 1", "a = 1\n[a.b]", "a = x", 'a = "x']
)  # fmt: skip
def test_our_reader_of_toml_refuses_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="line "):
        Reader(text).read()


def test_nested_values_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(TrainingSettingsError, match="TOML"):
        read_toml(Path(written(tmp_path, "a = " + "[" * 100_000)))
    with pytest.raises(ValueError, match="too deeply"):
        Reader("a = " + "[" * 100_000).read()


def test_what_is_written_is_read() -> None:
    content = {"a": 'x "y" \\ \n é \x7f', "b": [1, 2.0, 1e-5], "c": {"k": [0.9, 0.99]}, "d": True}
    assert Reader(write_toml(content | {"r": [{"p": 1}, {}]})).read() == content | {
        "r": [{"p": 1}, {}]
    }


def test_prompt_files_of_kohya(tmp_path: Path) -> None:
    assert parse_preview("a cat --n dark, blurry --w 512 --h 768 --d 7 --l 4.5 --s 12") == Preview(
        "a cat", "dark, blurry", 512, 768, 7, 12, 4.5
    )
    assert parse_preview("a cat -- on a mat") == Preview("a cat -- on a mat")
    for wrong in ("a --x 1", "a --w wide", "a --s 0", "a --l nan"):
        with pytest.raises(TrainingSettingsError, match="the preview"):
            parse_preview(wrong)
    file = tmp_path / "prompts.txt"
    file.write_text("# comment\n\na cat --d 1\na dog\n", encoding="utf-8")
    assert read_prompts(file) == ("a cat --d 1", "a dog")
    (job,) = jobs("a", "x", "--preview-file", str(file))
    assert job.prompts()[0].seed == 1
    file.write_text("a cat\u2028on a mat\na dog\n", encoding="utf-8")
    assert read_prompts(file) == ("a cat\u2028on a mat", "a dog")
    file.write_text("# nothing", encoding="utf-8")
    with pytest.raises(TrainingDataError, match="0 prompts"):
        read_prompts(file)


def test_what_a_file_tells_of_itself_stays() -> None:
    """A caption in it may have a separator that ``str.splitlines()`` takes for a newline."""
    (job,) = jobs("a", "x")
    before = 'my words\nss_tag_frequency: {"a\u2028b": 1}\nmore\u2028words'
    told = told_of(job, job.settings, "model", [], [], before)
    assert told.startswith("my words\nmore\u2028words\nss_output_name: a\n")


def test_event_files_hold_the_steps(tmp_path: Path) -> None:
    events = Events(tmp_path)
    events.add(TrainingStep(300, 400, 0.5, 0.25, 1e-3, 2.0, validation=None))
    content = events.path.read_bytes()
    records, at = [], 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        records.append(content[at + 12 : at + 12 + length])
        at += length + 16
    assert b"brain.Event:2" in records[0]
    assert b"gradient_norm" in records[1]
    assert b"validation" not in records[1]
    assert struct.pack("<f", 0.25) in records[1]
    assert bytes([0x10, 0xAC, 0x02]) in records[1]  # field 2, step 300
    from hypernetworks.training.tensorboard import _checksum

    # The check value of CRC-32C is 0xE3069283; masked, as TFRecord has it:
    assert _checksum(b"123456789") == struct.pack(
        "<I", ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
    )
