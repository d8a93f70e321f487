"""Sheets over up to three axes: what is typed, the jobs, the images, and the files."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import hypernetworks as hn
from hypernetworks.cli import compare as cli_compare
from hypernetworks.hosts.diffusers import Generation, Picture, Result
from hypernetworks.studio.comparing import values
from hypernetworks.studio.comparing.axes import (
    BLOCK_OFF,
    BLOCKS,
    CFG,
    CHECKPOINT,
    KINDS,
    MULTIPLIER,
    NETWORK,
    SAMPLER,
    SEED,
    STEPS,
    WORDS,
)
from hypernetworks.studio.comparing.checkpoints import looking_in, steps_of
from hypernetworks.studio.comparing.drawing import sheet
from hypernetworks.studio.comparing.page_file import page_file
from hypernetworks.studio.comparing.planning import Plan, plan, without_values
from hypernetworks.studio.comparing.ranking import notes, ranked
from hypernetworks.studio.comparing.sheets import Sheets, described
from hypernetworks.studio.comparing.working import Compared, compare, summary
from hypernetworks.studio.job_queue import Update
from hypernetworks.training.records import COLUMNS


class FakePainter:
    """Images whose colour says the prompt's length and the seed."""

    def __init__(self) -> None:
        self.jobs: list[Generation] = []

    def problems(self, prompt: str) -> list[str]:
        return [f"{prompt} at character 3: it doesn't fit"] if "night" in prompt else []

    def generate(self, job: Generation, on_step: Any = None, on_picture: Any = None) -> Result:
        self.jobs.append(job)
        for step in range(1, job.steps + 1):
            if on_step is not None and on_step(step, job.steps) is False:
                break
        colour = (len(job.prompt), job.seed, 40 * len(job.block_off or ""))
        return Result([Picture(Image.new("RGB", (8, 8), colour), f"{job.prompt}\nSteps: 1")], [])


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> hn.Library:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("lib")
    structure = hn.Structure((1, 2, 1), "relu", activate_output=False)
    for name in ("ink", "sepia", "<b>night<b>"):
        hn.write(hn.Hypernetwork.create(name, structure, (8, 768)), folder / f"{name}.safetensors")
    return hn.Library([folder])


@pytest.fixture
def painter() -> Any:
    return FakePainter()


def planned(library: hn.Library, *axes: tuple[str, str], **more: Any) -> Plan:
    job = more.pop("job", Generation("a cat <hypernet:ink:1>", steps=2))
    return plan(job, [*axes, ("", ""), ("", "")][:3], library, **more)


def made(painter: Any, todo: Plan, library: hn.Library, **more: Any) -> Compared:
    job = Generation("a cat <hypernet:ink:1>", steps=2)
    return compare(painter, job, todo, lambda _: None, threading.Event(), **more)


# ------------------------------------------------------------------ what is typed


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("1, 2,3", ("1", "2", "3")),
        ("1-4", ("1", "2", "3", "4")),
        ("1-9 (+4)", ("1", "5", "9")),
        ("9-1 (-4)", ("9", "5", "1")),
        ("10-0 [3]", ("10", "5", "0")),
        ("-1, -3--1", ("-1", "-3", "-2")),
        ("", ()),
    ],
)
def test_numbers_and_ranges(typed: str, expected: tuple[str, ...]) -> None:
    assert values.numbers(typed, whole=True) == expected


@pytest.mark.parametrize("typed", ["x", "1-", "0-1 [0]", "1-1e9", "1-1000", "0-1 [5]"])
def test_what_is_no_number(typed: str) -> None:
    with pytest.raises(hn.HypernetworkError):
        values.numbers(typed, whole=True)


def test_multipliers_of_a_line() -> None:
    assert values.multipliers("0, 0.25,0.5 1;1") == ("0", "0.25", "0.5", "1")
    assert values.multipliers("0 0@0,1@0.5, 1") == ("0", "0@0,1@0.5", "1")
    assert values.multipliers("0-1 [3]") == ("0", "0.5", "1")
    assert values.multipliers("-1, -0.5") == ("-1", "-0.5")
    assert values.multipliers("  ") == ("1",)
    with pytest.raises(hn.HypernetworkError):
        values.multipliers("0, x")


def test_words_and_blocks() -> None:
    assert values.words('cat, "a dog, old", cat') == ("cat", "a dog, old")
    assert values.blocks("INALL, outall") == ("INALL", "outall")
    ones = ",".join("1" * 16)
    assert values.blocks(f"{ones}; MIDD") == (ones, "MIDD")
    with pytest.raises(hn.HypernetworkError):
        values.blocks("NOWHERE")


# ------------------------------------------------------------------ plans


def test_networks_by_multipliers(library: hn.Library) -> None:
    job = Generation("a <hypernet:ink:1:k=0.5>, b <hypernet:other:1>")
    todo = planned(library, (MULTIPLIER, "0, 1"), (NETWORK, "ink, sepia"), job=job)
    assert [one.prompt for one in todo.jobs.values()] == [
        "a <hypernet:ink:0:k=0.5>, b <hypernet:other:1>",
        "a <hypernet:ink:1:k=0.5>, b <hypernet:other:1>",
        "a , b <hypernet:other:1> <hypernet:sepia:0>",
        "a , b <hypernet:other:1> <hypernet:sepia:1>",
    ]
    assert todo.labels == (("0", "1"), ("ink", "sepia"), ("",))


@pytest.mark.parametrize(
    ("kind", "typed", "field", "expected"),
    [
        (STEPS, "3-5", "steps", [3, 4, 5]),
        (CFG, "1, 7.5", "cfg", [1.0, 7.5]),
        (SEED, "4, 9", "seed", [4, 9]),
        (SAMPLER, "euler a, DDIM", "sampler", ["Euler a", "DDIM"]),
        (
            WORDS,
            "cat, dog",
            "prompt",
            ["a cat <hypernet:ink:1>", "a dog <hypernet:ink:1>"],
        ),
        (BLOCKS, "INALL", "prompt", ["a cat <hypernet:ink:1:lbw=INALL>"]),
        (NETWORK, "sepia", "prompt", ["a cat <hypernet:ink:1> <hypernet:sepia:1>"]),
    ],
)
def test_each_axis_changes_its_setting(
    library: hn.Library, kind: str, typed: str, field: str, expected: list[Any]
) -> None:
    todo = planned(library, (kind, typed))
    assert [getattr(job, field) for job in todo.jobs.values()] == expected
    assert {job.batch for job in todo.jobs.values()} == {1}


def test_every_kind_has_an_example_and_a_test() -> None:
    assert all(kind.example for kind in KINDS.values())
    assert len(KINDS) == 10


def test_words_come_before_networks_and_pages_are_a_third_axis(library: hn.Library) -> None:
    axes = (NETWORK, "sepia"), (WORDS, "cat, dog"), (SEED, "1, 2")
    todo = planned(library, *axes, job=Generation("a cat"))
    assert list(todo.jobs)[:3] == [(0, 0, 0), (0, 1, 0), (1, 0, 0)]
    assert todo.jobs[1, 1, 0].prompt == "a dog <hypernet:sepia:1>"
    assert todo.jobs[1, 1, 0].seed == 2
    assert todo.label((1, 1, 0)) == "2 · dog · sepia"


def test_a_block_off_stands_in_the_tag_of_known_families(library: hn.Library) -> None:
    sd1 = planned(library, (BLOCK_OFF, ""), blocks=("IN01", "MID"))
    prompts = [job.prompt for job in sd1.jobs.values()]
    assert prompts[0] == "a cat <hypernet:ink:1>"
    assert prompts[2].endswith("lbw=1,1,1,1,1,1,0,1,1,1,1,1,1,1,1,1>")
    miniature = planned(library, (BLOCK_OFF, "IN03"), blocks=("IN01", "IN03"))
    assert [job.block_off for job in miniature.jobs.values()] == [None, "IN03"]


def test_without_a_choice_it_takes_those_of_the_prompt_or_of_the_library(
    library: hn.Library,
) -> None:
    assert planned(library, (NETWORK, "")).columns.values == ("ink",)
    assert len(planned(library, (NETWORK, ""), job=Generation("a")).columns.values) == 3


def test_networks_are_compared_by_their_files(library: hn.Library) -> None:
    job = Generation("a cat <hypernet:INK:0.8:k=2> <hypernet:SEPIA.safetensors:1>")
    axis = (NETWORK, "ink, Sepia, INK, sepia")
    todo = planned(library, axis, job=job, without=True)
    assert todo.labels[0] == ("without", "ink", "Sepia")
    assert [one.prompt for one in todo.jobs.values()] == [
        "a cat",
        "a cat <hypernet:ink:0.8:k=2>",
        "a cat <hypernet:Sepia:1>",
    ]
    fewer = without_values(todo, job, frozenset({"Sepia"}))
    assert fewer is not None
    assert fewer.labels[0] == ("without", "ink")

    # What no axis is about stays as it was typed, and words are searched for in that.
    assert planned(library, (STEPS, "2"), job=job).jobs[0, 0, 0].prompt == job.prompt
    words = planned(library, (WORDS, "INK, SEPIA"), (NETWORK, "sepia"), job=job)
    assert words.jobs[0, 0, 1].prompt == "a cat <hypernet:sepia:0.8:k=2> <hypernet:sepia:1>"


@pytest.mark.parametrize(
    ("axes", "error"),
    [
        ([("", "")], "choose what to compare"),
        ([("Weather", "sun")], "can't be compared"),
        ([(SEED, "1"), (SEED, "2")], "two axes"),
        ([(NETWORK, "ink"), (CHECKPOINT, "ink")], "not both"),
        ([(NETWORK, "inc")], "did you mean ink"),
        ([(MULTIPLIER, "0-1 [60]"), (SEED, "1-4")], "at most 200"),
        ([(WORDS, "zebra, dog")], "not in the prompt"),
        ([(STEPS, "0")], "use 1 to 1000"),
        ([(SAMPLER, "Magic")], "no sampler"),
        ([(STEPS, "")], "type some values"),
        ([(BLOCK_OFF, "IN09")], "no block"),
    ],
)
def test_what_can_not_be_compared(
    library: hn.Library, axes: list[tuple[str, str]], error: str
) -> None:
    with pytest.raises(hn.HypernetworkError, match=error):
        planned(library, *axes, blocks=("IN01",))


def test_axes_of_networks_need_one(library: hn.Library) -> None:
    nothing = Generation("a")
    with pytest.raises(hn.HypernetworkError, match="the prompt has no network"):
        planned(library, (MULTIPLIER, "0, 1"), job=nothing)
    with pytest.raises(hn.HypernetworkError, match="column without"):
        planned(library, (SEED, "1"), job=nothing, without=True)
    with pytest.raises(hn.HypernetworkError, match="no network to compare"):
        planned(hn.Library([]), (NETWORK, ""), job=nothing)


def test_saved_steps_of_a_run_are_networks(library: hn.Library, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "log.csv").write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    for step in (5, 10):
        source = library.find("ink").path
        (run / f"mine-{step}.safetensors").write_bytes(source.read_bytes())
    typed, folders = steps_of("mine", run.parent)
    assert typed == '"mine-5", "mine-10"'
    wider = looking_in(library, folders)
    assert planned(wider, (CHECKPOINT, typed)).columns.values == ("mine-5", "mine-10")
    assert steps_of("mine: 10", run.parent)[0] == '"mine-10"'
    for wrong, error in (("mine: 7", "no saved step 7: it has 5, 10"), ("../lib", "no run")):
        with pytest.raises(hn.HypernetworkError, match=error):
            steps_of(wrong, run.parent)
    assert looking_in(library, ()) is library


# ------------------------------------------------------------------ the work


def test_equal_images_are_generated_once(painter: Any, library: hn.Library) -> None:
    updates: list[Update] = []
    job = Generation("a", seed=4, steps=3, batch=5)
    axes = (MULTIPLIER, "0, 1"), (NETWORK, "ink, sepia")
    todo = planned(library, *axes, job=job, without=True)
    shown: list[int] = []
    done = compare(
        painter,
        job,
        todo,
        updates.append,
        threading.Event(),
        on_cells=lambda cells, _: shown.append(len(cells)),
    )
    assert (done.messages, len(done.pictures)) == ([], 6)
    assert shown == [4, 1, 1]  # the column without, and multiplier 0, in both rows
    assert [one.prompt.strip() for one in painter.jobs][1:] == [
        "a <hypernet:ink:1>",
        "a <hypernet:sepia:1>",
    ]
    assert {(one.seed, one.batch) for one in painter.jobs} == {(4, 1)}
    assert (updates[-1].done, updates[-1].total) == (9, 9)


def test_several_processes_share_the_images(painter: Any, library: hn.Library) -> None:
    todo = planned(library, (SEED, "1-5"))
    parts = [made(painter, todo, library, share=(rank, 2)).pictures for rank in (0, 1)]
    assert [len(part) for part in parts] == [3, 2]
    assert {**parts[0], **parts[1]}.keys() == todo.jobs.keys()


def test_what_the_processes_made_is_joined_and_one_that_fails_ends_the_others(
    painter: Any, library: hn.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo = planned(library, (SEED, "1-5"))
    first, second = (made(painter, todo, library, share=(rank, 2)) for rank in (0, 1))
    second.messages.extend([*first.messages, "of the second alone"])
    world: Any = SimpleNamespace(size=2)

    def gather(parts: list[Any], _own: Compared) -> None:
        parts[:] = [first, second]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    whole = cli_compare._gathered(world, first)
    assert whole.pictures.keys() == todo.jobs.keys()
    assert whole.messages == [*first.messages, "of the second alone"]

    def closed(*_: Any) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "all_gather_object", closed)
    with pytest.raises(hn.HypernetworkError, match="another process of this comparison has failed"):
        cli_compare._gathered(world, first)


def test_a_network_that_does_not_fit_gets_no_row_and_a_message(
    painter: Any, library: hn.Library
) -> None:
    job = Generation("a", steps=1)
    axes = (MULTIPLIER, "0.5, 1"), (NETWORK, "ink, <b>night<b>")
    todo = planned(library, *axes, job=job)
    plans: list[Plan] = []
    done = compare(painter, job, todo, lambda _: None, threading.Event(), on_plan=plans.append)
    assert len(painter.jobs) == len(done.pictures) == len(plans[0].jobs) == 2
    assert done.messages == ["<hypernet:<b>night<b>:1>: it doesn't fit"]
    alone = planned(library, (NETWORK, "<b>night<b>"), job=job)
    nothing = compare(painter, job, alone, lambda _: None, threading.Event())
    assert nothing.plan is None
    assert len(nothing.messages) == 1


def test_a_comparison_says_how_long_it_takes(
    painter: Any, library: hn.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 1000, 5))
    monkeypatch.setattr("hypernetworks.studio.comparing.working.time.monotonic", lambda: next(now))
    notes_of: list[str] = []
    job = Generation("a <hypernet:ink:1>", steps=2)
    todo = planned(library, (MULTIPLIER, "0.5, 1"), job=job)
    compare(painter, job, todo, lambda u: notes_of.append(u.note), threading.Event())
    assert notes_of[0].endswith("· 15 s left")
    assert "left" not in notes_of[-1]


def test_an_interrupted_sheet_has_what_was_made(painter: Any, library: hn.Library) -> None:
    cancelled = threading.Event()
    job = Generation("a", steps=3)
    todo = planned(library, (MULTIPLIER, "0, 1"), (NETWORK, "ink, sepia"), job=job)

    def tell(update: Update) -> None:
        if update.done == 4:
            cancelled.set()

    done = compare(painter, job, todo, tell, cancelled)
    assert done.messages == ["interrupted after 1 of 3 images"]
    assert summary(done) == "2 images of 4 on one sheet"  # multiplier 0 stands in both rows
    assert not compare(painter, job, todo, tell, cancelled).pictures


# ------------------------------------------------------------------ blocks


def test_blocks_are_sorted_by_the_change_of_the_image(painter: Any, library: hn.Library) -> None:
    axes = (BLOCK_OFF, "B, AAA"), (SEED, "1, 2")
    todo = planned(library, *axes, blocks=("B", "AAA"), without=True)
    done = made(painter, todo, library)
    assert done.plan is not None
    plan_, pictures, changes = ranked(done.plan, done.pictures)
    assert plan_.labels[0] == ("without", "all blocks", "AAA", "B")  # the longer changes more
    assert changes["AAA"] == pytest.approx(3 * changes["B"])
    for cell, job in plan_.jobs.items():
        assert pictures[cell].image.getpixel((0, 0))[2] == 40 * len(job.block_off or "")
    beside = notes({"without": 0.2, "B": 0.05}, "without")
    assert beside == {"without": "changes 20.0%", "B": "changes 5.0%, 25% of the effect"}
    short = dict(list(done.pictures.items())[:2])
    assert ranked(done.plan, short) == (done.plan, short, {})  # interrupted: as it was


# ------------------------------------------------------------------ the files


def test_sixty_values_fill_a_sheet_that_can_be_seen(library: hn.Library) -> None:
    todo = planned(library, (MULTIPLIER, "0-1 [60]"))
    paper = sheet(todo, {cell: Image.new("RGB", (96, 96), "red") for cell in todo.jobs})
    assert 0.5 < paper.width / paper.height < 2


def test_a_large_sheet_stays_readable_by_this_program(library: hn.Library) -> None:
    todo = planned(library, (SEED, "1-200"))
    paper = sheet(todo, {(0, 0, 0): Image.new("RGB", (1024, 1024), "red")})
    assert paper.width * paper.height < 64e6


def test_pages_are_below_one_another_and_labels_do_not_grow(library: hn.Library) -> None:
    job = Generation(f"a {'long ' * 40}")
    axes = (WORDS, f'"{"long " * 40}", dog'), (SEED, "1"), (STEPS, "5, 6")
    todo = planned(library, *axes, job=job)
    images = {(0, 0, 0): Image.new("RGB", (512, 256), "red")}
    images[1, 0, 1] = Image.new("RGB", (512, 256), "blue")
    paper = sheet(todo, images, "a title " * 50, {"dog": "a note"})
    assert paper.width < 2 * 520 + 300
    colours = [colour for _, colour in paper.getcolors(1 << 20)]
    assert {(255, 0, 0), (0, 0, 255)} <= set(colours)
    assert paper.getpixel((300, 200)) == (255, 0, 0)


def test_the_page_is_one_file_without_markup_of_others(library: hn.Library) -> None:
    todo = planned(library, (NETWORK, "ink, <b>night<b>"), (SEED, "1"))
    picture = Picture(Image.new("RGB", (8, 8)), "<script>alert(1)</script>")
    found = page_file(todo, dict.fromkeys(todo.jobs, picture), "<i>title", {"ink": "<u>note"})
    for markup in ("<b>night", "<script>alert", "<i>title", "<u>note"):
        assert markup not in found
    assert "http" not in found
    assert found.count("data:image/png;base64,") == 2
    assert "&lt;script&gt;alert(1)" in found


def test_a_sheet_of_a_window_fills_in(painter: Any, library: hn.Library, tmp_path: Path) -> None:
    sheets = Sheets(tmp_path)
    one = sheets.open("a window", "title")
    assert described(one)["pages"] == []
    todo = planned(library, (BLOCK_OFF, "B, AAA"), (SEED, "1, 2"), blocks=("B", "AAA"))
    versions: set[str] = set()

    def on_cells(cells: Any, picture: Picture) -> None:
        one.add(cells, picture)
        versions.add(one.version)

    done = made(
        painter, todo, library, on_plan=lambda p: setattr(one, "plan", p), on_cells=on_cells
    )
    assert len(versions) == 6
    assert done.plan is not None
    plan_, pictures, changes = ranked(done.plan, done.pictures)
    one.finish(plan_, pictures, notes(changes, "without"))
    seen = described(one)
    assert not seen["running"]
    assert [column["label"] for column in seen["columns"]] == ["all blocks", "AAA", "B"]
    for cell in seen["cells"]:  # the images moved with their columns
        with Image.open(one.path(cell["file"])) as image:
            assert image.getpixel((0, 0)) == pictures[cell["at"]].image.getpixel((0, 0))

    other = sheets.open("a window", "the next")
    assert not one.folder.exists()
    assert sheets.keyed(one.key) is None
    assert sheets.keyed(other.key) is other
    assert sheets.of("another window") is None
