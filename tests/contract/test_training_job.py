"""Whole jobs of training on diffusers models: a tiny random one of SD's shape, and the
miniature.
"""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hypernetworks as hn
from hypernetworks.cli import main
from hypernetworks.errors import TrainingDataError, TrainingSettingsError
from hypernetworks.hosts.diffusers import Painter
from hypernetworks.hosts.diffusers.prompt_encoding import in_parts
from hypernetworks.hosts.diffusers.training import TrainingJob, Watcher, preset_job, train_job
from hypernetworks.hosts.diffusers.training.frozen_model import FrozenModel
from hypernetworks.hosts.diffusers.training.images import Images
from hypernetworks.hosts.diffusers.training.texts import TextEncoding
from hypernetworks.training import Batch, TrainingStep, validation
from hypernetworks.training.gathering import gather
from hypernetworks.training.pictures import split_validation
from hypernetworks.training.sources import Source


@pytest.fixture(autouse=True)
def _few_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """The validation loss of one image would else take four times as long as the training."""
    monkeypatch.setattr(validation, "LEAST", len(validation.TIMES))


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> Painter:
    return Painter(tiny_folder, hn.Library([]))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Nine dark pictures with captions in their names."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(9):
        numbers = np.random.default_rng(number).integers(0, 60, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(numbers).resize((256, 192)).save(
            folder / f"{number} a red apple, {'abc'[number % 3]}.png"
        )
    return folder


def job_on(painter: Painter, folder: Path, steps: int = 4, **changes: Any) -> TrainingJob:
    """A short job on small pictures."""
    job = preset_job("style", "dark", folder, painter, runs=folder.parent / "runs")
    settings = replace(
        job.settings, steps=steps, batch=2, save_every=2, watch_every=2, preview_every=2, warm_up=0
    )
    size = {"width": 16, "height": 16, "step": 2}
    job = replace(job, settings=settings, picture_settings=replace(job.picture_settings, **size))
    return replace(job, **changes)


def parameters_of(painter: Painter) -> list[torch.Tensor]:
    parts = (painter.pipeline.unet, painter.pipeline.vae, painter.pipeline.text_encoder)
    return [p.detach().clone() for part in parts for p in part.parameters()]


def test_captions_that_are_too_long_are_told_before_the_first_step(
    tiny: Painter, pictures: Path
) -> None:
    told: list[str] = []
    (pictures / "0 a red apple, a.txt").write_text("a red apple " * 40, encoding="utf-8")
    job = job_on(tiny, pictures, steps=2)
    job = replace(job, picture_settings=replace(job.picture_settings, shuffle=True))
    outcome = train_job(
        job, tiny, Watcher(on_message=told.append, on_step=lambda _: told.append("step"))
    )
    assert told == [*outcome.messages, "step", "step"]
    (message,) = outcome.messages
    assert f"longer than the {tiny.pipeline.tokenizer.model_max_length - 2} tokens" in message
    assert "a red apple a red" in message


def test_long_captions_are_encoded_in_parts(tiny: Painter) -> None:
    """A part is what the model makes of it alone; the last one is an empty text where it isn't
    needed.
    """
    pipeline, length = tiny.pipeline, tiny.pipeline.tokenizer.model_max_length
    tokens = pipeline.tokenizer("a red apple, " * 40, truncation=False).input_ids[1:-1]
    comma = pipeline.tokenizer.get_vocab().get(",</w>")
    parts = in_parts(tokens, length - 2, comma)
    assert [t for part in parts for t in part] == tokens
    assert all(part[-1] == comma for part in parts[:-1]) or comma is None

    for skip in (1, 2):
        one = TextEncoding(pipeline, torch.device("cpu"), 1, skip)
        three = TextEncoding(pipeline, torch.device("cpu"), 3, skip)
        alone, empty = (row["context"] for row in one.encode(["a red apple", ""]))
        (found,) = (row["context"] for row in three.encode(["a red apple"]))
        assert torch.equal(found[:length], alone)
        assert torch.equal(found[length : 2 * length], empty)
        assert found.shape[0] == 3 * length
    assert not torch.equal(
        one.encode(["a red apple"])[0]["context"],
        TextEncoding(pipeline, torch.device("cpu")).encode(["a red apple"])[0]["context"],
    )
    assert three.too_long is None
    three.encode(["a red apple, " * 200])
    assert three.too_long is not None


def test_parts_end_after_commas() -> None:
    assert in_parts(range(10), 4, None) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert in_parts([*[1] * 6, 9, 1, 1, 1], 8, 9) == [[*[1] * 6, 9], [1, 1, 1]]
    assert in_parts([1, 1, 1, 1, 9, 1], 4, 9) == [[1, 1, 1, 1], [9, 1]]
    assert in_parts([], 4, 9) == [[]]
    assert in_parts([9, *[1] * 74, 1], 75, 9)[0][-1] == 1  # the comma is too far away


def kept_of(job: TrainingJob) -> list[Path]:
    """The images that are kept for the validation loss."""
    own, share = gather(job.all_sources()).pictures, job.picture_settings.validation
    return [p.path for p in split_validation(own, share, job.settings.seed)[1]]


@pytest.mark.parametrize("count", [1, 2])
def test_kept_images_that_can_not_be_read_are_left_out_where_asked(
    tiny: Painter, pictures: Path, count: int
) -> None:
    job = job_on(tiny, pictures, steps=2, skip_bad=True)
    share = replace(job.picture_settings, validation=count / 9)
    job = replace(job, picture_settings=share)
    # its content decides what is kept, so it is cut until it is
    path = min(pictures.iterdir())
    content = path.read_bytes()
    for missing in range(len(content) // 2, len(content)):
        path.write_bytes(content[:-missing])
        if path in (kept := kept_of(job)):
            break
    assert len(kept) == count

    outcome = train_job(job, tiny)
    assert outcome.step == 2
    (told,) = (line for line in outcome.messages if "images that can't be used" in line)
    assert path.name in told
    assert ("leave no validation loss" in told) == (count == 1)


def test_a_job_tells_and_keeps_what_it_is_made_of(
    tiny: Painter, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the file, in run.toml, in event files and in the cache; and a captioner names what has no
    name.
    """
    (pictures / "0 a red apple, a.png").rename(pictures / "IMG_0001.png")
    prior = pictures.parent / "prior"
    prior.mkdir()
    Image.new("RGB", (32, 32)).save(prior / "a pet.png")
    asked: list[str] = []

    class Stand:
        def __init__(self, folder: Path, device: torch.device) -> None:
            assert folder == pictures.parent / "blip"

        def caption(self, path: Path) -> str:
            asked.append(path.name)
            return "a green pear"

    monkeypatch.setattr("hypernetworks.hosts.diffusers.training.images.Captioner", Stand)
    job = job_on(
        tiny,
        pictures,
        captioner=pictures.parent / "blip",
        cache=pictures.parent / "cache",
        tensorboard=True,
        sources=(Source(pictures, repeats=2), Source(prior, is_prior=True, weight=0.5)),
    )
    outcome = train_job(job, tiny)
    assert asked == ["IMG_0001.png"]
    assert outcome.result is not None
    told = hn.read(outcome.result).provenance.optional
    assert told is not None
    assert "ss_num_train_images: 16\nss_num_reg_images: 1\nss_num_validation_images: 1" in told
    assert '"a green pear": 1' in told
    assert str(pictures.parent) not in told
    header = outcome.result.read_bytes()[:20000]
    assert b'"ss_num_reg_images":"1"' in header
    assert len(list((job.folder / "tensorboard").iterdir())) == 1
    assert (job.folder / "run.toml").read_text(encoding="utf-8").count("[[folders]]") == 2

    class NotAgain:
        def __init__(self, *_: object) -> None:
            raise AssertionError

    monkeypatch.setattr("hypernetworks.hosts.diffusers.training.images.Captioner", NotAgain)
    monkeypatch.setattr(tiny.pipeline.vae, "encode", NotAgain)
    again = train_job(replace(job, settings=replace(job.settings, steps=5)), tiny)
    assert (again.step, again.messages) == (5, ())


def test_previews_tell_how_far_they_are_and_stop_in_the_middle(
    tiny: Painter, pictures: Path
) -> None:
    told: list[tuple[int, int]] = []
    seen: list[int] = []
    watcher = Watcher(
        on_step=lambda step: seen.append(step.step),
        on_preview_progress=lambda *how_far: told.append(how_far),
        should_stop=lambda: len(told) == 6 + 3,
    )
    job = job_on(tiny, pictures, previews=("a red apple", "a b c"), preview_steps=3)
    outcome = train_job(job, tiny, watcher)
    assert told == [(n, 6) for n in (1, 2, 3, 4, 5, 6, 1, 2, 3)]
    assert seen == [1, 2]
    assert outcome.step == 2
    assert not outcome.is_finished
    with Image.open(job.folder / "previews" / "1-000000.png") as first:
        assert first.size == (16, 16)  # as large as what is learned
    assert {path.name for path in (job.folder / "previews").iterdir()} == {
        "1-000000.png",
        "2-000000.png",
    }


def test_a_job_leaves_files_and_the_model_as_it_was(tiny: Painter, pictures: Path) -> None:
    unet = tiny.pipeline.unet
    before, processors = parameters_of(tiny), dict(unet.attn_processors)
    stages, steps, previews = [], [], []
    watcher = Watcher(
        on_stage=lambda *stage: stages.append(stage),
        on_step=steps.append,
        on_preview=lambda step, made: previews.append((step, len(made))),
    )
    job = job_on(tiny, pictures, previews=("a red apple", "a b c"), preview_steps=2)
    outcome = train_job(job, tiny, watcher)
    assert outcome.is_finished
    assert outcome.messages == ()
    assert outcome.file == job.folder / "dark-4.safetensors"
    assert hn.read(outcome.file).widths == tuple(sorted({32, 64, 48}))
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert [step.validation is not None for step in steps] == [False, True, False, True]
    assert previews == [(0, 2), (2, 2), (4, 2)]
    assert stages[-1] == ("encoding captions", 1, 1)
    assert ("encoding images", 8, 8) in stages  # one of nine is held out
    assert {path.name for path in job.folder.iterdir()} == {
        "settings.json", "run.toml", "log.csv", "curve.png", "previews", "previews.png", "state.pt",
        "dark-2.safetensors", "dark-4.safetensors", "dark-best.safetensors",
    }  # fmt: skip
    with (job.folder / "log.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
    assert json.loads((job.folder / "settings.json").read_text())["settings"]["steps"] == 4
    for name in ("curve.png", "previews.png"):
        assert min(Image.open(job.folder / name).size) > 50
    assert all(torch.equal(a, b) for a, b in zip(before, parameters_of(tiny), strict=True))
    assert unet.attn_processors == processors
    assert all(p.requires_grad for p in unet.parameters())
    assert not any(module._forward_pre_hooks for module in unet.modules())


def weights(outcome_file: Path | None) -> list[torch.Tensor]:
    assert outcome_file is not None
    return list(hn.read(outcome_file).parameters())


def test_previews_change_no_number_and_a_stopped_job_goes_on(tiny: Painter, pictures: Path) -> None:
    plain = train_job(job_on(tiny, pictures, runs=pictures / "plain"), tiny)
    job = job_on(tiny, pictures, previews=("a red apple",), preview_steps=2)
    seen: list[TrainingStep] = []
    stopped = train_job(job, tiny, Watcher(on_step=seen.append, should_stop=lambda: len(seen) == 3))
    assert not stopped.is_finished
    assert stopped.file == job.folder / "dark-3.safetensors"
    torch.randn(5)
    finished = train_job(job, tiny, Watcher(on_step=seen.append))
    assert [step.step for step in seen] == [1, 2, 3, 4]
    for one, other in zip(weights(plain.file), weights(finished.file), strict=True):
        assert torch.equal(one, other)
    again = train_job(job, tiny)
    assert "finished" in again.messages[0]
    seen.clear()
    train_job(replace(job, restart=True), tiny, Watcher(on_step=seen.append))
    assert [step.step for step in seen] == [1, 2, 3, 4]


def test_a_file_is_gone_on_from_and_its_steps_count(tiny: Painter, pictures: Path) -> None:
    first = train_job(job_on(tiny, pictures), tiny)
    second = train_job(
        job_on(tiny, pictures, name="darker", network=first.file, suffix=".pt"), tiny
    )
    assert second.file is not None
    assert second.file.name == "darker-8.pt"
    network = hn.read(second.file)
    assert (network.provenance.step, network.provenance.name) == (8, "darker")
    assert second.step == 4


def test_a_restart_throws_nothing_away_before_the_new_run_is_possible(
    tiny: Painter, pictures: Path
) -> None:
    job = job_on(tiny, pictures)
    first = train_job(job, tiny)
    before = {path: path.read_bytes() for path in job.folder.glob("*.*")}
    (pictures / "broken.png").write_bytes(b"nothing")
    for changes in ({}, {"settings": replace(job.settings, optimiser="SDG")}):
        if changes:
            (pictures / "broken.png").unlink()
        with pytest.raises(hn.HypernetworkError):
            train_job(replace(job, restart=True, **changes), tiny)
        assert {path: path.read_bytes() for path in job.folder.glob("*.*")} == before
    assert first.file is not None
    again = train_job(
        replace(job, restart=True, network=first.file), tiny
    )  # what it begins with stays
    assert again.file is not None
    assert again.file.name == "dark-8.safetensors"
    assert first.file.read_bytes() == before[first.file]


def test_what_is_different_from_the_run_that_goes_on_is_told(tiny: Painter, pictures: Path) -> None:
    job = job_on(tiny, pictures, steps=2)
    first = train_job(job, tiny)
    before = (job.folder / "settings.json").read_text(encoding="utf-8")
    with pytest.raises(TrainingSettingsError, match="did not start from dark-2"):
        train_job(replace(job, network=first.file), tiny)
    narrow = replace(job.creation, structure=hn.Structure((1, 3, 1), "linear"))
    with pytest.raises(hn.HypernetworkError, match="a different structure"):
        train_job(replace(job, creation=narrow), tiny)
    assert (job.folder / "settings.json").read_text(encoding="utf-8") == before
    more = train_job(
        replace(job, settings=replace(job.settings, steps=3, seed=7, rate="1e-5", batch=1)), tiny
    )
    assert more.messages == (
        "`seed` was 0 in earlier steps and is 7 from here on",
        "`batch` was 2 in earlier steps and is 1 from here on",
        "the validation loss measures something else than in the earlier steps (other images, "
        "captions, masks, size, seed or model), so the best network is chosen anew from here on",
    )
    assert json.loads((job.folder / "settings.json").read_text())["model"] == tiny.model_name


def test_files_to_look_at_end_no_training(tiny: Painter, pictures: Path) -> None:
    """As a table that is open in Excel, whose folder can't be written to."""
    job = job_on(tiny, pictures, previews=("a red apple",), preview_steps=2)
    for name in ("log.csv", "curve.png", "previews", "previews.png"):
        (job.folder / name / "taken").mkdir(parents=True)
    outcome = train_job(job, tiny)
    assert outcome.is_finished
    assert outcome.file is not None
    told = [message for message in outcome.messages if message.endswith("; training continues")]
    assert len(told) == len(outcome.messages)
    assert any("log.csv" in message for message in told)
    assert any("curve.png" in message for message in told)


def test_pictures_without_words_are_told(tiny: Painter, pictures: Path) -> None:
    for number, path in enumerate(sorted(pictures.iterdir())):
        path.rename(pictures / f"{number:04d}.png")
    assert (
        "images have no caption, such as 000"
        in train_job(job_on(tiny, pictures, steps=1), tiny).messages[0]
    )
    job = job_on(tiny, pictures, steps=2, name="worded")
    worded = replace(
        job, picture_settings=replace(job.picture_settings, template="a picture of [name]")
    )
    assert train_job(worded, tiny).messages == ()


def test_a_stop_while_images_are_encoded_stops_there(tiny: Painter, pictures: Path) -> None:
    done: list[int] = []

    def on_stage(stage: str, number: int, total: int) -> None:
        done.append(number)

    watcher = Watcher(on_stage=on_stage, should_stop=lambda: max(done, default=0) >= 3)
    outcome = train_job(job_on(tiny, pictures), tiny, watcher)
    assert max(done) == 3
    assert (outcome.step, outcome.is_finished, outcome.file) == (0, False, None)
    assert not (pictures.parent / "runs" / "dark").exists()


def test_mistakes_are_told_before_images_are_encoded(tiny: Painter, pictures: Path) -> None:
    stages: list[str] = []
    watcher = Watcher(on_stage=lambda stage, *_: stages.append(stage))
    job = job_on(tiny, pictures, steps=1)
    train_job(job, tiny)
    settings = job.settings
    tanh = replace(job.creation.structure, activation="tanh")
    wrong: list[TrainingJob] = [
        replace(job, settings=replace(settings, optimiser="SDG")),
        replace(job, settings=replace(settings, options={"momentum": 3})),
        replace(job, settings=replace(settings, optimiser="SGD")),  # the run has another
        replace(job, creation=replace(job.creation, structure=tanh)),
        replace(job, picture_settings=replace(job.picture_settings, template="none.txt")),
        replace(job, repeats=(1, 2)),
        replace(job, runs=next(pictures.iterdir()), restart=True),  # no folder
    ]
    for each in wrong:
        with pytest.raises(hn.HypernetworkError):
            train_job(each, tiny, watcher)
    assert stages == []


def test_messages_of_previews_are_told(tiny: Painter, pictures: Path) -> None:
    job = job_on(tiny, pictures, steps=1, previews=("a cat <hypernet:none:1>",), preview_steps=1)
    messages = train_job(job, tiny).messages
    assert any(m.startswith("the preview") and '"none"' in m for m in messages)


def test_what_will_be_learned_is_told_first(tiny: Painter, pictures: Path) -> None:
    Image.new("RGB", (300, 64)).save(pictures / "IMG_6003.png")
    (pictures / "phone.heic").write_bytes(b"x")
    told: list[str] = []
    watcher = Watcher(on_overview=told.extend, on_step=lambda _: told.append("step"))
    job = job_on(tiny, pictures, steps=1)
    messages = train_job(job, tiny, watcher).messages
    assert told[0] == "9 images to learn from, 1 kept for validation"
    assert "9 from file names, 1 images have none" in told[2]
    assert told[-1] == "step"
    assert any("phone.heic" in message for message in messages)
    assert any("IMG_6003.png (79%)" in message for message in messages)


def test_steps_go_by_the_number_of_images(tiny: Painter, pictures: Path) -> None:
    told: list[str] = []
    job = job_on(tiny, pictures, steps=400, steps_by_images=True, dry_run=True)
    train_job(job, tiny, Watcher(on_overview=told.extend))
    assert told[1] == "600 steps of 2: each image about 150 times"
    assert not job.folder.exists()


def test_repeats_and_prior_images_make_no_image_come_more_often(
    tiny: Painter, pictures: Path
) -> None:
    """Repeats only say how often images come in comparison with others."""
    prior = pictures.parent / "prior"
    prior.mkdir()
    for number in range(16):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(prior / f"{number} a pet.png")
    more = pictures.parent / "more"
    more.mkdir()
    Image.new("RGB", (32, 32)).save(more / "a plum.png")

    def said(*sources: Source) -> str:
        told: list[str] = []
        job = job_on(tiny, pictures, steps=400, steps_by_images=True, dry_run=True, sources=sources)
        train_job(job, tiny, Watcher(on_overview=told.extend))
        return told[1]

    own, old = Source(pictures, repeats=10), Source(prior, is_prior=True)
    assert said(own) == "600 steps of 2: each image about 150 times"
    # 80 samples of 8 own images in each 96 samples
    assert said(own, old) == "720 steps of 2: each image outside `prior` about 150 times"
    assert (
        said(Source(pictures), old)
        == "1,600 steps of 2: each image outside `prior` about 133 times"
    )
    assert said(own, Source(more)) == "675 steps of 2: each image, on average, about 150 times"


def test_what_was_learned_from_is_never_validated_on(tiny: Painter, pictures: Path) -> None:
    """Not even where it was kept for validation before, and validation was off in between."""
    job = job_on(tiny, pictures)
    images = Images(job, FrozenModel(tiny.pipeline), print, print)
    keys = [picture.key for picture in images.gathered.pictures]
    images.split({"seen": sorted(keys), "held_out": keys[:1]})
    assert images.kept == []
    images.split({"seen": sorted(keys[1:]), "held_out": keys[:1]})
    assert [picture.key for picture in images.kept] == keys[:1]


def test_a_best_network_of_other_images_is_not_the_result(tiny: Painter, pictures: Path) -> None:
    """Its loss says nothing of what is measured now; nor where nothing is measured any more."""
    first = train_job(job_on(tiny, pictures, steps=2), tiny)
    for number in range(9, 30):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(pictures / f"{number} a plum.png")
    job = job_on(tiny, pictures, steps=3)
    added = train_job(replace(job, settings=replace(job.settings, watch_every=3)), tiny)
    assert any("chosen anew" in message for message in added.messages)
    assert (added.best, added.best_step) == (first.best, 3)
    assert json.loads((job.folder / "settings.json").read_text())["measured_since"] == 2
    job = job_on(tiny, pictures, steps=4)
    sizes = replace(job.picture_settings, validation=0.0)
    last = train_job(replace(job, picture_settings=sizes), tiny)
    assert last.best is None
    assert last.result == last.file


def test_the_best_file_is_the_result(tiny: Painter, pictures: Path) -> None:
    outcome = train_job(job_on(tiny, pictures, steps=4), tiny)
    assert outcome.best == outcome.result
    assert hn.read(outcome.best).provenance.step == outcome.best_step  # type: ignore[arg-type]
    train_job(replace(job_on(tiny, pictures, steps=1), restart=True), tiny)
    plain = job_on(tiny, pictures, name="plain", steps=1)
    outcome = train_job(replace(plain, settings=replace(plain.settings, watch_every=0)), tiny)
    assert outcome.best is None
    assert outcome.result == outcome.file


@pytest.mark.parametrize("keep", [True, False])
def test_half_precision_is_trained_in_what_was_asked(
    tiny_folder: Path, pictures: Path, keep: bool
) -> None:
    """The weights come back bit for bit where they must, and previews are painted meanwhile."""
    half = Painter(tiny_folder, hn.Library([]), half=True)
    before = [p.clone() for p in half.pipeline.unet.parameters()]
    inside = []

    def on_step(done: TrainingStep) -> None:
        inside.append((next(half.pipeline.unet.parameters()).dtype, done.loss))

    job = job_on(half, pictures, previews=("a red apple",), preview_steps=2)
    job = replace(job, settings=replace(job.settings, precision="fp32"))
    outcome = train_job(job, half, Watcher(on_step=on_step), keep_model=keep)
    assert (outcome.is_finished, outcome.messages) == (True, ())
    assert {dtype for dtype, _ in inside} == {torch.float32}
    after = list(half.pipeline.unet.parameters())
    assert {p.dtype for p in after} == {torch.float16}
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not half.pipeline.unet._forward_pre_hooks
    assert not half.pipeline.unet._forward_hooks
    model, batch = (
        FrozenModel(half.pipeline),
        Batch(torch.randn(1, 4, 8, 8), torch.randn(1, 32, 48)),
    )
    with model.ready("fp32"), torch.no_grad():  # gradients pass through nothing that is half
        assert model.predict(batch.latents, torch.tensor([3]), batch).dtype == torch.float32
        given = (batch.latents.half(), torch.tensor(3), batch.context.half())
        assert half.pipeline.unet(*given, return_dict=False)[0].dtype == torch.float16


def gradients(painter: Painter, checkpointing: bool) -> list[torch.Tensor]:
    """Of one step on fixed numbers."""
    model = FrozenModel(painter.pipeline)
    torch.manual_seed(0)
    network = hn.Hypernetwork.create(
        "a", hn.Structure((1, 2, 1), "tanh", activate_output=False), model.widths()
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    network.train()
    with model.ready(), hn.apply(model.unet, [(network, 1.0)]):
        if checkpointing:
            assert model.save_memory()
            assert not model.save_memory()
        batch = Batch(torch.randn(2, 4, 8, 8), torch.randn(2, 32, 48))
        model.predict(batch.latents, torch.tensor([3, 700]), batch).square().mean().backward()
    assert not model.unet.is_gradient_checkpointing
    found = [parameter.grad for parameter in network.parameters()]
    return [gradient for gradient in found if gradient is not None]


def test_saving_memory_changes_no_gradient(tiny: Painter) -> None:
    plain, saving = gradients(tiny, False), gradients(tiny, True)
    assert len(plain) == len(saving) == 24
    assert all(float(gradient.abs().max()) > 0 for gradient in plain)
    for one, other in zip(plain, saving, strict=True):
        torch.testing.assert_close(one, other)


def tiny_xl() -> Any:
    """A pipeline of SDXL's shape: two text encoders, and a vector for the whole text."""
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from hypernetworks.hosts.diffusers.checkpoints.clip_tokenizer import build_tokenizer
    from hypernetworks.hosts.diffusers.checkpoints.families import CONFIGURATIONS

    torch.manual_seed(0)
    tokenizer = build_tokenizer(CONFIGURATIONS / "sdxl" / "tokenizer")
    size = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = CLIPTextConfig(**size, projection_dim=16, vocab_size=len(tokenizer))
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=(2, 4),
        norm_num_groups=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 16,
    )
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, sample_size=16),
        text_encoder=CLIPTextModel(config),
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
    )


def test_sdxl_is_told_its_text_vector_and_size() -> None:
    model = FrozenModel(tiny_xl())
    network = hn.Hypernetwork.create("a", hn.Structure(), model.widths(False))
    network.train()
    (condition,) = model.encode_texts(["a red apple"])
    assert {key: tuple(value.shape) for key, value in condition.items()} == {
        "context": (77, 32),
        "text_embeds": (16,),
    }
    latents, spread = model.encode_pixels(torch.zeros(1, 3, 16, 16))
    assert spread is not None
    assert latents.shape == spread.shape == (1, 4, 8, 8)
    batch = Batch(
        latents, condition["context"][None], None, {"text_embeds": condition["text_embeds"][None]}
    )
    with model.ready(), hn.apply(model.unet, [(network, 1.0)]):
        model.predict(latents, torch.tensor([3]), batch).square().mean().backward()
    assert model.widths(False) == (32,)
    assert any(float(p.grad.abs().max()) > 0 for p in network.parameters() if p.grad is not None)


def test_bf16_weights_come_back_bit_for_bit(tiny: Painter) -> None:
    """Layers are converted once rather than in every call; gradients are nearly those of fp32."""
    before, model = parameters_of(tiny), FrozenModel(tiny.pipeline)
    batch, times = Batch(torch.randn(2, 4, 8, 8), torch.randn(2, 32, 48)), torch.tensor([3, 700])
    with torch.no_grad(), model.ready():
        assert model.unet.conv_in.weight.dtype == torch.float32
        precise = model.predict(batch.latents, times, batch)
    with torch.no_grad(), model.ready("bf16"), torch.autocast("cpu", torch.bfloat16):
        assert model.unet.conv_in.weight.dtype == torch.bfloat16
        assert model.unet.conv_norm_out.weight.dtype == torch.float32
        rough = model.predict(batch.latents, times, batch).float()
    assert 0 < float((rough - precise).norm()) < 0.03 * float(precise.norm())
    assert all(torch.equal(a, b) for a, b in zip(before, parameters_of(tiny), strict=True))
    assert all(p.is_contiguous() for p in tiny.pipeline.unet.parameters())


@pytest.mark.parametrize(
    ("size", "kind"), [((96, 96), "AttnProcessor"), ((512, 512), "AttnProcessor2_0")]
)
def test_large_maps_keep_the_attention_that_needs_little_memory(
    tiny: Painter, size: tuple[int, int], kind: str
) -> None:
    model = FrozenModel(tiny.pipeline)
    before = dict(model.unet.attn_processors)
    with model.ready(size=size):
        assert {type(processor).__name__ for processor in model.unet.attn_processors.values()} == {
            kind
        }
    assert model.unet.attn_processors == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precisions_train_and_preview(tiny: Painter, pictures: Path, precision: str) -> None:
    job = job_on(tiny, pictures, previews=("a red apple",), preview_steps=2)
    job = replace(job, settings=replace(job.settings, precision=precision))
    before = parameters_of(tiny)
    outcome = train_job(job, tiny)
    assert outcome.is_finished
    assert outcome.messages == ()
    assert all(torch.equal(a, b) for a, b in zip(before, parameters_of(tiny), strict=True))


def test_bad_jobs_are_refused_before_anything_happens(tiny: Painter, pictures: Path) -> None:
    for changes, error, match in (
        ({"pictures": pictures / "none"}, TrainingDataError, "no such folder"),
        (
            {
                "picture_settings": replace(
                    job_on(tiny, pictures).picture_settings, width=17, step=1
                )
            },
            None,
            "multiples",
        ),
        ({"network": pictures / "none.pt"}, hn.HypernetworkError, "no such file"),
    ):
        with pytest.raises(error or TrainingSettingsError, match=match):
            train_job(job_on(tiny, pictures, **changes), tiny)
    for changes in ({"name": "a/b"}, {"suffix": ".ckpt"}, {"checkpointing": "maybe"}):
        with pytest.raises(TrainingSettingsError):
            job_on(tiny, pictures, **changes)
    with pytest.raises(TrainingSettingsError, match="style, subject, small"):
        preset_job("portrait", "a", pictures, tiny)
    assert not (pictures.parent / "runs").exists()


@pytest.mark.parametrize("preset", ["style", "subject", "small"])
def test_presets_fit_the_model(tiny: Painter, pictures: Path, preset: str) -> None:
    job = preset_job(preset, "a", pictures, tiny)
    assert (job.picture_settings.width, job.picture_settings.step) == (
        tiny.default_size,
        tiny.size_step,
    )
    model = FrozenModel(tiny.pipeline)
    assert model.widths(job.creation.self_attention) == (
        (48,) if preset == "small" else (32, 48, 64)
    )


def test_the_miniature_learns_to_be_dark_in_seconds(pictures: Path) -> None:
    """The loss on a picture that training never saw falls, and so does the preview's light."""
    painter = Painter(None, hn.Library([]))
    job = preset_job(
        "style", "dark", pictures, painter, runs=pictures.parent / "runs", previews=("a red apple",)
    )
    settings = replace(job.settings, steps=20, batch=4, watch_every=5, preview_every=20, warm_up=2)
    light: list[float] = []
    measured: list[float] = []

    def on_step(done: TrainingStep) -> None:
        if done.validation is not None:
            measured.append(done.validation)

    def on_preview(step: int, made: Sequence[Image.Image]) -> None:
        light.append(float(np.asarray(made[0]).mean()))

    watcher = Watcher(on_step=on_step, on_preview=on_preview)
    train_job(replace(job, settings=settings, preview_steps=4), painter, watcher)
    assert measured[-1] < 0.7 * measured[0]
    assert light[1] < 0.7 * light[0]


def test_the_commands(
    tiny_folder: Path,
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = pictures.parent
    create = [
        "create",
        "fresh",
        "-o",
        str(folder),
        "--widths",
        "32,48,64",
        "--preset",
        "small",
        "--activation",
        "tanh",
    ]
    assert main(create) == 0
    assert "MiB" in capsys.readouterr().out
    assert main(create) == 2
    assert "--overwrite" in capsys.readouterr().err
    train = [
        "train",
        "dark",
        str(pictures),
        "--checkpoint",
        str(tiny_folder),
        "--runs",
        str(folder / "runs"),
    ]
    train += [
        "--device",
        "cpu",
        "--network",
        str(folder / "fresh.pt"),
        "--size",
        "16",
        "--steps",
        "3",
        "--batch",
        "2",
    ]
    train += [
        "--preview",
        "a red apple",
        "--preview-every",
        "3",
        "--preview-steps",
        "2",
        "--option",
        "eps=1e-7",
    ]
    assert main(train) == 0
    printed = capsys.readouterr().out.strip()
    network = hn.read(printed)
    assert printed.endswith("dark-best.pt")
    assert (folder / "runs" / "dark" / "dark-3.pt").exists()
    assert network.structure.activation == "tanh"
    assert main([*train, "--steps", "0"]) == 2
    assert "--steps is 0" in capsys.readouterr().err
    assert main([*train, "--tag-dropout", "2"]) == 2
    assert "--tag-dropout is 2.0" in capsys.readouterr().err
    assert main([*train, "--layers", "1,3,1", "--random-last"]) == 2
    assert "--layers, --random-last would have no effect" in capsys.readouterr().err
    before = {path: path.read_bytes() for path in (folder / "runs").rglob("*.*")}
    assert main([*train, "--dry-run"]) == 0
    assert "8 images to learn from, 1 kept for validation" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (folder / "runs").rglob("*.*")} == before

    real = train_job

    def interrupted(job: TrainingJob, painter: Painter, watcher: Watcher, **others: Any) -> object:
        watched = replace(watcher, on_step=lambda _: signal.raise_signal(signal.SIGINT))
        return real(job, painter, watched, **others)

    monkeypatch.setattr("hypernetworks.hosts.diffusers.training.train_job", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background
    try:  # ignores it
        assert main([*train, "--restart"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    output = capsys.readouterr()
    assert "the same command without --restart continues" in output.err
    assert hn.read(output.out.strip()).provenance.step == 1
