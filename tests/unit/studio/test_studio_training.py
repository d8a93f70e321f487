"""The Train tab without a page: what its fields mean, the folders it may use, and the way into the
library."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import hypernetworks as hn
from hypernetworks.hosts.diffusers.training import Outcome, TrainingJob, Watcher
from hypernetworks.studio.job_queue import JobQueue, Update
from hypernetworks.studio.train import example, form_values, trainer
from hypernetworks.studio.train.form_values import (
    FormValues,
    creation_of,
    job_of,
    of_preset,
    size_of,
)
from hypernetworks.studio.train.trainer import State, Trainer
from hypernetworks.studio.web.live import training
from hypernetworks.training import PRESETS, TrainingStep
from hypernetworks.training.folders import TrainingFolders
from hypernetworks.ui.training import views
from hypernetworks.ui.training.publish import check_free, publish

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def painter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """As much of a painter as the fields need; the miniature's numbers."""
    (tmp_path / "library").mkdir()
    monkeypatch.setattr(
        form_values,
        "FrozenModel",
        lambda _pipeline: SimpleNamespace(widths=lambda own: (96, 192)[not own :]),
    )
    library = hn.Library([tmp_path / "library"])
    return SimpleNamespace(
        is_miniature=True, default_size=96, size_step=32, pipeline=None, library=library
    )


def network(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = hn.Hypernetwork.create("some", hn.Structure((1, 2, 1), "linear"), (8,))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    hn.write(made, path)
    return path


def pictures(folder: Path, *names: str) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8), "red").save(folder / name, format="PNG")
    return [str(folder / name) for name in names]


def step(number: int, **changes: Any) -> TrainingStep:
    return replace(
        TrainingStep(number, 100, 1 / number, 1 / number, 1e-3, 0.5, seconds_left=30.0), **changes
    )


# ------------------------------------------------------------------ fields


@pytest.mark.parametrize("purpose", PRESETS)
def test_the_fields_begin_with_the_preset_and_mean_it(
    purpose: str, painter: Any, tmp_path: Path
) -> None:
    values = of_preset(purpose, painter)
    job = job_of(
        FormValues(name="a", purpose=purpose, **values), painter, tmp_path, tmp_path / "runs"
    )
    expected = form_values.preset_job(purpose, "a", tmp_path, painter, runs=tmp_path / "runs")
    assert job == replace(
        expected, creation=replace(expected.creation, structure=job.creation.structure)
    )
    assert job.creation.structure.layer_structure == PRESETS[purpose].layer_structure
    assert job.creation.structure.dropout in (PRESETS[purpose].dropout, ())


def test_empty_fields_are_the_presets_and_numbers_become_whole(
    painter: Any, tmp_path: Path
) -> None:
    job = job_of(
        FormValues(name=" a ", steps=7.0, batch=3.0, clip=0.5, previews="x\n\n y \n"),
        painter,
        tmp_path,
        tmp_path,
    )
    assert (job.name, job.settings.steps, job.settings.batch, job.settings.clip) == ("a", 7, 3, 0.5)
    assert (job.settings.rate, job.picture_settings.width, job.previews) == ("3e-3", 96, ("x", "y"))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"name": "../a"}, "can't be used"),
        ({"name": ""}, "can't be used"),
        ({"name": HOSTILE}, "can't be used"),
        ({"purpose": "other"}, "preset"),
        ({"template": "/etc/passwd.txt"}, "not a file"),
        ({"layers": "1, x"}, "not a list"),
        ({"layers": "1, 1e9, 1"}, "larger than"),
        ({"batch": 1e6}, "at most"),
        ({"width": 1e6}, "at most"),
        ({"steps": -1}, "steps"),
        ({"file_suffix": ".exe"}, "suffix"),
        ({"begin_with": "../secret"}, "hypernetwork"),
        ({"rate": "fast"}, "rate"),
    ],
)
def test_wrong_fields_are_told(
    changes: dict[str, Any], match: str, painter: Any, tmp_path: Path
) -> None:
    with pytest.raises(hn.HypernetworkError, match=match):
        job_of(replace(FormValues(name="a"), **changes), painter, tmp_path, tmp_path)


def test_the_size_is_shown_before(painter: Any) -> None:
    both, text_alone = (
        size_of(FormValues(), painter),
        size_of(FormValues(self_attention=False), painter),
    )
    assert "96, 192" in both
    assert "widths 192." in text_alone
    assert int(both.split(" ")[0].replace(",", "")) > int(text_alone.split(" ")[0].replace(",", ""))
    assert "not a list" in size_of(FormValues(layers="?"), painter)
    assert creation_of(FormValues(layers="1; 2 ,2 1", dropout=0.3)).structure.dropout == (
        0.0,
        0.3,
        0.3,
        0.0,
    )


# ------------------------------------------------------------------ folders


def test_only_folders_with_pictures_can_be_chosen(tmp_path: Path) -> None:
    pictures(tmp_path / "mine" / "cats" / "more", "1.png", "2.PNG")
    pictures(tmp_path / "mine" / ".hidden", "1.png")
    pictures(tmp_path / "own" / "pictures" / "sent", "1.png")
    pictures(tmp_path / "secret", "1.png")
    (tmp_path / "mine" / "empty").mkdir()
    training_folders = TrainingFolders(tmp_path / "own", (tmp_path / "mine",))
    assert training_folders.choices() == [
        ("sent (1 image)", "0:sent"),
        ("mine/cats/more (2 images)", "1:cats/more"),
    ]
    assert training_folders.folder("1:cats/more") == tmp_path / "mine" / "cats" / "more"
    for key in (
        "1:../secret",
        "2:.",
        "0:../../secret",
        "",
        "1",
        "x:y",
        "-1:cats/more",
        "1:.hidden",
        str(tmp_path),
    ):
        with pytest.raises(hn.HypernetworkError, match="choose one from the list"):
            training_folders.folder(key)


@pytest.mark.skipif(sys.platform != "linux", reason="names are text on this system")
def test_folders_whose_name_is_no_text_are_not_offered(tmp_path: Path) -> None:
    pictures(tmp_path / "mine" / os.fsdecode(b"caf\xe9"), "1.png")
    pictures(tmp_path / "mine" / "cats", "1.png")
    choices = TrainingFolders(tmp_path / "own", (tmp_path / "mine",)).choices()
    assert [key for _, key in choices] == ["1:cats"]


def test_pictures_that_are_sent_are_kept_and_never_replaced(tmp_path: Path) -> None:
    training_folders, sent = (
        TrainingFolders(tmp_path / "own"),
        pictures(tmp_path / "sent", "a cat.png"),
    )
    (tmp_path / "sent" / "a cat.txt").write_text("a grey cat", encoding="utf-8")
    sent.append(str(tmp_path / "sent" / "a cat.txt"))
    first, second = training_folders.keep(sent, "cats"), training_folders.keep(sent, "cats")
    assert [path.name for path in (first, second)] == ["cats", "cats-2"]
    assert sorted(path.name for path in first.iterdir()) == ["a cat.png", "a cat.txt"]
    assert training_folders.folder(training_folders.key(second)) == second
    assert sorted(path.name for path in training_folders.pictures.iterdir()) == ["cats", "cats-2"]


@pytest.mark.parametrize("other", ["a cat.png", "A Cat.PNG"])
def test_files_of_one_name_are_refused_unless_they_are_the_same(tmp_path: Path, other: str) -> None:
    training_folders, sent = (
        TrainingFolders(tmp_path / "own"),
        pictures(tmp_path / "first", "a cat.png"),
    )
    again = pictures(tmp_path / "second", other)
    kept = training_folders.keep([*sent, *again], "cats")
    assert [path.name for path in kept.iterdir()] == ["a cat.png"]
    Image.new("RGB", (8, 8), "blue").save(again[0], format="PNG")
    with pytest.raises(hn.HypernetworkError, match="two different files"):
        training_folders.keep([*sent, *again], "cats")


def test_what_a_killed_studio_left_half_sent_goes_after_a_day(tmp_path: Path) -> None:
    training_folders, sent = (
        TrainingFolders(tmp_path / "own"),
        pictures(tmp_path / "sent", "a cat.png"),
    )
    for name, hours in (("old", 25), ("new", 1)):
        pictures(training_folders.pictures / f".sending-{name}" / "made", "half.png")
        then = time.time() - 3600 * hours
        os.utime(training_folders.pictures / f".sending-{name}", (then, then))
    training_folders.keep(sent, "cats")
    assert sorted(path.name for path in training_folders.pictures.iterdir()) == [
        ".sending-new",
        "cats",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", b"no picture"),
        ("a.exe", b"x"),
        ("a.txt", b"\xff\xfe\xff"),
        ("a.txt", b"x" * 70_000),
        (".a.png", b"x"),
    ],
)
def test_other_files_are_refused_and_nothing_stays(
    name: str, content: bytes, tmp_path: Path
) -> None:
    training_folders, sent = (
        TrainingFolders(tmp_path / "own"),
        pictures(tmp_path / "sent", "fine.png"),
    )
    (tmp_path / "sent" / name).write_bytes(content)
    with pytest.raises(hn.HypernetworkError):
        training_folders.keep([*sent, str(tmp_path / "sent" / name)], "cats")
    for wrong in ("../cats", "", "a/b"):
        with pytest.raises(hn.HypernetworkError):
            training_folders.keep(sent, wrong)
    assert not training_folders.pictures.exists() or not list(training_folders.pictures.iterdir())


def test_captions_alone_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(hn.HypernetworkError, match="no image"):
        TrainingFolders(tmp_path / "own").keep([str(tmp_path / "a.txt")], "cats")


# ------------------------------------------------------------------ into the library


def test_a_run_may_replace_its_own_network_and_no_other(tmp_path: Path) -> None:
    library, folder = hn.Library([tmp_path / "lib"]), tmp_path / "lib"
    job = TrainingJob("ink", tmp_path, tmp_path / "runs")
    assert check_free(job, library, folder, False) is False
    made = network(job.folder / "ink-5.safetensors")
    pictures(job.folder / "previews", "1-000005.png")
    assert publish(job, made, library, folder, False) == "ink"
    assert (folder / "ink.safetensors").read_bytes() == made.read_bytes()
    assert (folder / "ink.png").exists()
    assert check_free(job, library, folder, False) is True  # it is this run's
    with pytest.raises(hn.HypernetworkError, match="Replace"):
        check_free(
            replace(job, restart=True), library, folder, False
        )  # which is about to be thrown away
    assert (
        publish(job, network(job.folder / "ink-9.safetensors", 1), library, folder, True) == "ink"
    )
    (folder / "ink.safetensors").write_bytes(made.read_bytes())  # by now it is someone else's
    with pytest.raises(hn.HypernetworkError, match="Replace"):
        check_free(job, library, folder, False)
    with pytest.raises(hn.HypernetworkError, match="meanwhile"):
        publish(job, made, library, folder, False)
    assert check_free(job, library, folder, True) is True
    with pytest.raises(hn.HypernetworkError, match="another name"):
        check_free(replace(job, suffix=".pt"), library, folder, True)
    with pytest.raises(hn.HypernetworkError, match="no folder"):
        check_free(job, library, None, True)


def test_a_card_never_shows_the_model_without_its_network(tmp_path: Path) -> None:
    library, folder = hn.Library([tmp_path / "lib"]), tmp_path / "lib"
    job = TrainingJob("ink", tmp_path, tmp_path / "runs")
    pictures(job.folder / "previews", "1-000000.png")
    publish(job, network(job.folder / "ink-5.safetensors"), library, folder, False)
    assert not (folder / "ink.png").exists()


# ------------------------------------------------------------------ the training of a studio


@pytest.fixture
def studio(painter: Any, tmp_path: Path) -> Trainer:
    pictures(tmp_path / "mine" / "cats", "1.png")
    training_folders = TrainingFolders(tmp_path / "own", (tmp_path / "mine",))
    return Trainer(JobQueue(painter), training_folders, tmp_path / "library")


def ended(studio: Trainer) -> State:
    studio.wait(20)
    assert not studio.state.is_running
    return studio.state


def test_images_are_named_by_a_path_where_nobody_else_uses_the_page(
    studio: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainingJob] = []

    def done(job: TrainingJob, _painter: Any, _watcher: Watcher) -> Outcome:
        seen.append(job)
        return Outcome(network(job.folder / "a-1.safetensors"), 1, True, ())

    monkeypatch.setattr(trainer, "train_job", done)
    folder = str(tmp_path / "mine" / "cats")
    values = FormValues(name="a", path=f'"{folder}"', memory="streamed", checkpointing="on")
    studio.start(values)
    ended(studio)
    assert (str(seen[0].pictures), seen[0].memory, seen[0].checkpointing) == (
        folder,
        "streamed",
        "on",
    )
    for changes, error in (
        ({"path": str(tmp_path / "none")}, "no such folder"),
        ({"key": "1:cats"}, "not both"),
    ):
        with pytest.raises(hn.HypernetworkError, match=error):
            studio.start(replace(values, **changes))
    studio.takes_paths = False
    with pytest.raises(hn.HypernetworkError, match="accepts no paths"):
        studio.start(values)


def train_slowly(job: TrainingJob, _painter: Any, watcher: Watcher) -> Outcome:
    """Steps until it is told to stop, or all are done."""
    watcher.on_stage("encoding images", 1, 1)
    watcher.on_message("a remark")
    watcher.on_preview(0, [Image.new("RGB", (500, 300))])
    number = 0
    while number < job.settings.steps and not watcher.should_stop():
        number += 1
        watcher.on_step(step(number, steps=job.settings.steps))
        time.sleep(0.001)
    return Outcome(
        network(job.folder / f"a-{number}.safetensors"),
        number,
        number == job.settings.steps,
        ("a remark",),
    )


def test_it_runs_alone_is_interrupted_and_reaches_the_library(
    studio: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "train_job", train_slowly)
    studio.start(FormValues(name="a", key="1:cats", steps=10**6))
    with pytest.raises(hn.HypernetworkError, match="being trained"):
        studio.start(FormValues(name="b", key="1:cats"))
    while not studio.state.rows:
        time.sleep(0.01)
    job = studio.job_queue.run("a window", lambda *_: "made")
    assert 'Waiting for the training of "a" (step' in next(job).note
    assert not studio.job_queue.interrupt("a window 2")
    assert studio.interrupt()
    state = ended(studio)
    assert state.kept_as == "a"
    assert not state.is_wrong
    assert state.messages[0] == "a remark"
    assert 'press "Train" to continue' in state.messages[1]
    assert state.previews[0][1][0].size == (192, 115)
    assert list(job)[-1] == "made"
    assert not studio.interrupt()
    studio.start(FormValues(name="a", key="1:cats", steps=3))  # its own network: no need to ask
    assert ended(studio).messages == ["a remark"]
    assert "after 3 steps" in views.progress(studio.state)


def test_the_example_goes_on_by_its_own_button(
    studio: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "train_job", train_slowly)
    monkeypatch.setattr(example, "generate_example", lambda *_: studio.training_folders.pictures)
    studio.start(FormValues(name=example.NAME, key=example.KEY, steps=10**6))
    while not studio.state.rows:
        time.sleep(0.01)
    assert studio.interrupt()
    assert f'press "{example.BUTTON}" to continue' in ended(studio).messages[1]


def test_previews_tell_how_far_they_are() -> None:
    """On the bar before the first step; later the bar belongs to the steps."""
    state = State("a", is_running=True)
    watcher = trainer._watcher(state, threading.Event())
    watcher.on_preview_progress(7, 20)
    assert (state.note, state.done, state.total) == ("Generating previews: 7 of 20", 7, 20)
    watcher.on_step(step(3))
    watcher.on_preview_progress(8, 20)
    assert (state.note, state.done, state.total) == ("Generating previews: 8 of 20", 3, 100)


def test_every_window_sees_each_step_and_the_end_once(studio: Trainer) -> None:
    first = training(studio, "", True)
    assert not first["running"]
    studio.state = State("a", "Step 1 of 9", 1, 9, rows=[step(1)], is_running=True)
    seen = training(studio, first["version"], True)
    assert "Step 1 of 9" in seen["parts"]["progress"]
    assert "parts" not in training(studio, seen["version"], True)
    assert "parts" not in training(studio, "", False)  # another tab is in view

    studio.state.note = "Step 2 of 9"
    after = training(studio, seen["version"], True)
    assert "Step 2 of 9" in after["parts"]["progress"]
    studio.state.is_running = False
    assert "has ended" in training(studio, after["version"], True)["parts"]["progress"]


def test_what_goes_wrong_is_told(studio: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("", "1:dogs"):
        with pytest.raises(hn.HypernetworkError, match="choose"):
            studio.start(FormValues(name="a", key=key))
    for error, said in (
        (hn.HypernetworkError("too hot"), "too hot"),
        (RuntimeError("no memory"), "smaller batch"),
    ):

        def fail(*_: Any, error: Exception = error) -> Outcome:
            raise error

        monkeypatch.setattr(trainer, "train_job", fail)
        studio.start(FormValues(name="a", key="1:cats"))
        state = ended(studio)
        assert state.is_wrong
        assert said in state.messages[0]
        assert state.kept_as is None


def test_one_that_waits_can_be_interrupted(studio: Trainer) -> None:
    release, begun = (
        threading.Event(),
        studio.job_queue.run("one", lambda _p, tell, _w: (tell(Update()), release.wait(20))),
    )
    next(begun)
    studio.start(FormValues(name="a", key="1:cats"))
    while "Waiting for an image" not in studio.state.note:
        time.sleep(0.01)
    studio.interrupt()
    assert ended(studio).messages == ["interrupted before its first step"]
    release.set()
    list(begun)


# ------------------------------------------------------------------ the example, and what is shown


def test_the_example_is_painted_once_and_only_on_the_miniature(
    painter: Any, tmp_path: Path
) -> None:
    jobs = []

    def generate(job: Any, on_step: Any) -> Any:
        assert on_step(1, 10)
        jobs.append(job)
        return SimpleNamespace(
            pictures=[SimpleNamespace(image=Image.radial_gradient("L").convert("RGB"))]
        )

    painter.generate, training_folders = generate, TrainingFolders(tmp_path / "own")
    folder = example.generate_example(
        painter, training_folders, lambda _update: None, threading.Event()
    )
    assert len(list(folder.iterdir())) == len(jobs) == example.COUNT
    assert len({job.prompt for job in jobs}) == example.COUNT
    with Image.open(next(folder.iterdir())) as made:
        red, _, blue = made.convert("RGB").resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    assert blue > red + 20
    example.generate_example(painter, training_folders, lambda _update: None, threading.Event())
    assert len(jobs) == example.COUNT
    painter.is_miniature = False
    with pytest.raises(hn.HypernetworkError, match="miniature"):
        example.generate_example(painter, training_folders, lambda _update: None, threading.Event())


def test_names_never_become_markup() -> None:
    for state in (
        State(HOSTILE, HOSTILE, 1, 2, [step(1), step(2)], is_running=True),
        State(HOSTILE),
        State("a", kept_as=HOSTILE),
    ):
        shown = views.progress(state)
        assert "&lt;img" in shown
        assert "<img" not in shown


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "expected"),
    [
        (0.0, 1.0, False, [0, 0.5, 1]),
        (0.0, 0.0023, False, [0, 0.001, 0.002]),
        (0.012, 0.3, True, [0.02, 0.05, 0.1, 0.2]),
        (0.11, 0.12, True, [0.11, 0.12]),
        (2.0, 2.0, False, [2.0]),
    ],
)
def test_axes_have_round_values(
    low: float, high: float, logarithmic: bool, expected: list[float]
) -> None:
    assert views._ticks(low, high, logarithmic) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("last", "expected"),
    [(100, [20, 40, 60, 80]), (700, [200, 400, 600]), (5000, [2000, 4000]), (2, []), (1, [])],
)
def test_steps_of_an_axis_are_round_and_away_from_its_ends(last: int, expected: list[int]) -> None:
    assert views._steps_between(1, last) == expected


def test_curves_have_the_losses_and_stay_small() -> None:
    assert views.curves(State("a", rows=[step(1)])) == ""
    rows = [step(number, validation=0.5 if number % 10 == 0 else None) for number in range(1, 3001)]
    drawn = views.curves(State("a", rows=rows))
    assert drawn.count("<svg") == 3
    assert len(drawn) < 40_000
    assert "3000" in drawn
    lines = [part.split('"')[0].split() for part in drawn.split('points="')[1:]]
    assert len(lines[0]) == len(lines[1]) <= views.MOST_POINTS + 2
    heights = [float(place.split(",")[1]) for place in lines[1]]
    assert heights == sorted(heights)  # a falling loss
    assert "nan" not in views.curves(
        State("a", rows=[step(1), step(2, loss=float("nan")), step(3)])
    )


def test_previews_are_side_by_side_and_evenly_chosen() -> None:
    picture = Image.new("RGB", (8, 8))
    shown = views.previews(
        State("a", previews=[(number, [picture, picture]) for number in range(0, 2100, 100)])
    )
    assert shown.count("<img") == 2 * views.MOST_COLUMNS
    assert ">0<" in shown
    assert ">2000<" in shown
    assert views.previews(State()) == ""
