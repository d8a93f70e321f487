"""Networks that aren't linear as LoRAs, fitted on a tiny model through diffusers."""

from __future__ import annotations

import argparse
import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conversion_cases import network
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import hypernetworks as hn
from hypernetworks.cli import main
from hypernetworks.cli.fit_lora import _prompts
from hypernetworks.cli.to_lora import _base
from hypernetworks.conversion import Base, Weighted, to_lora
from hypernetworks.conversion.low_rank import FULL, Rank
from hypernetworks.errors import HypernetworkError
from hypernetworks.hosts.diffusers.checkpoints.loading import load_checkpoint
from hypernetworks.hosts.diffusers.conversion import (
    Fitted,
    Sampling,
    Training,
    distilling,
    fit_lora,
    fitting,
    general_prompts,
)
from hypernetworks.hosts.diffusers.conversion.distilling import (
    OF_BLOCKS,
    OF_BOTH,
    Student,
    Teacher,
)
from hypernetworks.hosts.diffusers.conversion.examples import Noise, make
from hypernetworks.hosts.diffusers.conversion.sampling import Generator
from hypernetworks.studio.converting import LORA, Order, convert
from hypernetworks.studio.job_queue import Update
from hypernetworks.training.scaling import Scaler

WIDTHS = (32, 64, 48)
PROMPTS = [f"{a} {b}{c}" for a in "abcd" for b in "xyz" for c in "12"]
RELU = hn.Structure((1, 2, 1), "relu", activate_output=False)


@pytest.fixture(scope="module")
def pipeline(tiny_folder: Path) -> Any:
    loaded: Any = load_checkpoint(tiny_folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def fitted(
    pipeline: Any, folder: Path, target: Path, style: hn.Hypernetwork, rank: Rank = FULL
) -> Fitted:
    sampling = Sampling(PROMPTS[:12], steps=2, cfg=2.0)
    with Base(folder) as base:
        return fit_lora(
            pipeline, base, [Weighted(style)], target, sampling, rank=rank, dtype="fp32"
        )


def distilled(
    pipeline: Any,
    folder: Path,
    target: Path,
    style: hn.Hypernetwork,
    steps: int,
    rate: float = 5e-3,
    **options: Any,
) -> Fitted:
    sampling = Sampling(PROMPTS, steps=2, cfg=2.0, multipliers=(1.0,))
    with Base(folder) as base:
        return fit_lora(
            pipeline,
            base,
            [Weighted(style)],
            target,
            sampling,
            training=Training(steps=steps, rate=rate, batch=4),
            **options,
        )


def test_the_fit_of_a_linear_network_is_the_exact_lora(
    pipeline: Any, tiny_folder: Path, tmp_path: Path
) -> None:
    style = network("style", 1, widths=WIDTHS, std=0.15)
    before = {name: t.clone() for name, t in pipeline.unet.state_dict().items()}
    found = fitted(pipeline, tiny_folder, tmp_path / "fit.safetensors", style)
    assert found.share > 0.98
    with Base(tiny_folder) as base:
        to_lora(base, [Weighted(style)], tmp_path / "exact.safetensors", dtype="fp32")
    fit, exact = (load_file(tmp_path / f"{name}.safetensors") for name in ("fit", "exact"))
    assert fit.keys() == exact.keys()
    self_attention = [name for name in fit if "attn1_to_v.diff" in name]
    assert self_attention
    for name in self_attention:  # a layer norm's output sums to 0: what adds to whole rows is free
        wrong, right = (t - t.mean(1, keepdim=True) for t in (fit[name] - exact[name], exact[name]))
        assert wrong.norm() < 0.1 * right.norm()
    after = pipeline.unet.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_network_that_is_not_linear_comes_back_in_part(
    pipeline: Any, tiny_folder: Path, tmp_path: Path
) -> None:
    style = network("style", 1, RELU, widths=WIDTHS, std=0.25)
    full = fitted(pipeline, tiny_folder, tmp_path / "full.safetensors", style)
    low = fitted(pipeline, tiny_folder, tmp_path / "low.safetensors", style, Rank(4))
    assert 0.3 < full.share < 0.999
    assert low.share < full.share
    assert low.converted.bytes < full.converted.bytes
    assert {layer.rank for layer in low.converted.layers} == {4}


def test_distilling_comes_closer_in_a_file_that_is_not_larger(
    pipeline: Any, tiny_folder: Path, tmp_path: Path
) -> None:
    """An ordinary LoRA: narrow factors, no biases, which every program reads."""
    style, before = network("style", 1, RELU, widths=WIDTHS, std=0.25), states(pipeline)
    hn.write(style, tmp_path / "style.safetensors")
    start = distilled(pipeline, tiny_folder, tmp_path / "start.safetensors", style, 0, dtype="fp32")
    told, path = list[tuple[int, int]](), tmp_path / "lora.safetensors"
    made = distilled(
        pipeline,
        tiny_folder,
        path,
        style,
        30,
        dtype="fp32",
        on_progress=lambda *at: told.append(at),
    )
    assert start.share + 0.01 < made.share < 1
    assert made.steps == 30
    assert told[-1][0] == told[-1][1]
    assert path.stat().st_size <= (tmp_path / "style.safetensors").stat().st_size
    tensors = load_file(path)
    assert {name.rpartition(".")[0].split(".")[-1] for name in tensors if "lora" in name}
    assert not [name for name in tensors if "diff" in name]
    assert {t.shape[1] for name, t in tensors.items() if "up.weight" in name} == {
        made.converted.layers[0].rank
    }
    after = states(pipeline)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_learning_rate_that_is_too_high_costs_nothing_but_time(
    pipeline: Any, tiny_folder: Path, tmp_path: Path
) -> None:
    """What is right for a small model destroys in ten steps what least squares found for a large
    one.
    """
    style = network("style", 1, RELU, widths=WIDTHS, std=0.25)
    start = distilled(pipeline, tiny_folder, tmp_path / "start.safetensors", style, 0)
    path = tmp_path / "lora.safetensors"
    made = distilled(pipeline, tiny_folder, path, style, 80, rate=0.3)
    assert made.share > start.share - 0.02
    assert made.training is not None
    assert made.training.is_lowered
    assert made.training.rate < 0.3
    assert "the learning rate was too high for this model, and was lowered to" in made.said()[-1]
    with safe_open(path, "pt") as file:
        origin = json.loads(file.metadata()["hypernetworks_origin"])
    assert origin["fit"]["learning_rate"] == 0.3
    assert origin["fit"]["last_learning_rate"] == made.training.rate


def test_a_training_that_gains_nothing_says_so(
    pipeline: Any, tiny_folder: Path, tmp_path: Path
) -> None:
    style = network("style", 1, RELU, widths=WIDTHS, std=0.25)
    start = distilled(pipeline, tiny_folder, tmp_path / "start.safetensors", style, 0)
    made = distilled(pipeline, tiny_folder, tmp_path / "lora.safetensors", style, 20, rate=30.0)
    assert made.share == pytest.approx(start.share, abs=1e-6)
    assert "so the LoRA is what least squares found" in made.said()[-1]


def test_fp16_finds_its_scale_or_says_that_it_can_not(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scale that overflowed left out every step, and 30 steps were said to be done."""
    half: Any = load_checkpoint(tiny_folder, dtype=torch.float16)
    half.set_progress_bar_config(disable=True)
    style, scales = network("style", 1, RELU, widths=WIDTHS, std=0.25), list[Scaler]()

    def scaler(*, enabled: bool) -> Scaler:
        scales.append(Scaler(enabled=enabled, init_scale=2.0**28))
        return scales[-1]

    monkeypatch.setattr(distilling, "Scaler", scaler)
    start = distilled(half, tiny_folder, tmp_path / "start.safetensors", style, 0)
    made = distilled(half, tiny_folder, tmp_path / "lora.safetensors", style, 30)
    assert made.share > start.share + 0.003
    assert 1 < scales[-1].get_scale() < 2**28

    monkeypatch.setattr(distilling, "MOST_OVERFLOWS", 3)
    with pytest.raises(HypernetworkError, match="overflow in the model: try --precision fp32"):
        distilled(half, tiny_folder, tmp_path / "again.safetensors", style, 60)
    assert not (tmp_path / "again.safetensors").exists()


def test_the_examples_are_images_with_noise_of_a_timestep(pipeline: Any) -> None:
    sampling = Sampling(PROMPTS[:8], steps=2, cfg=2.0)
    images = make(Generator(pipeline, sampling), PROMPTS[:3], [1, 2, 3])
    (wanted,) = Generator(pipeline, sampling).latents(PROMPTS[:3], [1, 2, 3])
    assert torch.equal(torch.stack([image.latent for image in images]), wanted)

    asked = Noise(pipeline.scheduler, 0).asked(images, "cpu")
    again, other = (Noise(pipeline.scheduler, seed).asked(images, "cpu") for seed in (0, 1))
    assert torch.equal(asked["sample"], again["sample"])
    assert not torch.equal(asked["sample"], other["sample"])
    negative, positive = asked["sample"].chunk(2)
    assert torch.equal(negative, positive)
    texts, _ = pipeline.encode_prompt(PROMPTS[1], "cpu", 1, False)
    assert torch.equal(asked["encoder_hidden_states"][4], texts[0])

    left = pipeline.scheduler.alphas_cumprod[asked["timestep"][:3]].view(-1, 1, 1, 1)
    noise = (positive - left.sqrt() * wanted) / (1 - left).sqrt()
    assert abs(noise.std() - 1) < 0.15
    assert abs(noise.mean()) < 0.15


def test_errors_count_as_shares_of_the_networks_effect(pipeline: Any, tiny_folder: Path) -> None:
    style, sampling = network("style", 1, RELU, widths=WIDTHS), Sampling(PROMPTS, 2, 2.0)
    images = make(Generator(pipeline, sampling), PROMPTS[:8], range(8))
    with Base(tiny_folder) as base:
        student = Student(pipeline.unet, base, 2, {}, 0)
    noise = Noise(pipeline.scheduler, 0)
    teacher = Teacher(student, [Weighted(style)], 1.0, sampling.cfg or 1.0, noise)
    teacher.measure(images)

    missed = 0.0
    for asked, right, share in teacher.parts(images):
        with torch.no_grad(), hn.apply(pipeline.unet, [(style, 1.0)]):
            assert teacher.loss(student.answered(asked), right) < 1e-8
        with torch.no_grad():
            missed += share * float(teacher.loss(student.answered(asked), right))
    # other noise than the effect was measured on, so not quite all of it
    assert 0.5 < missed / (1 + OF_BOTH + OF_BLOCKS) < 2


def test_blocks_that_the_networks_leave_alone_do_not_count_for_all(
    pipeline: Any, tiny_folder: Path
) -> None:
    sampling = Sampling(PROMPTS, 2, 2.0)
    images = make(Generator(pipeline, sampling), PROMPTS[:4], range(4))
    with Base(tiny_folder) as base:
        student = Student(pipeline.unet, base, 2, {}, 0)
    # of the deeper blocks: nothing before them changes
    style = network("style", 1, RELU, widths=(64,), std=0.25)
    teacher = Teacher(student, [Weighted(style)], 1.0, 2.0, Noise(pipeline.scheduler, 0))
    teacher.measure(images)
    torch.nn.init.normal_(next(iter(student.up.values())), std=1e-3)
    for asked, right, _ in teacher.parts(images):
        weights = {name: tensor.detach() for name, tensor in student.weights(1.0).items()}
        with torch.no_grad():
            assert 0 < teacher.loss(student.answered(asked, weights), right) < 3


def states(pipeline: Any) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in pipeline.unet.state_dict().items()}


def test_a_training_can_be_ended_and_repeated(
    pipeline: Any, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distilling, "MOST_IMAGES", 2)
    style, asked = network("style", 1, RELU, widths=WIDTHS, std=0.25), 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 4

    ended = distilled(pipeline, tiny_folder, tmp_path / "a.safetensors", style, 99, stop=stop)
    assert 1 <= ended.steps <= 4
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        origin = json.loads(file.metadata()["hypernetworks_origin"])
    assert origin["fit"]["steps"] == ended.steps
    assert origin["fit"]["shares_of_the_effect"] == {"1.0": round(ended.share, 4)}

    asked = 0
    (tmp_path / "again").mkdir()
    again = tmp_path / "again" / "a.safetensors"
    distilled(pipeline, tiny_folder, again, style, 99, stop=stop)
    assert again.read_bytes() == (tmp_path / "a.safetensors").read_bytes()

    # before the first image: what least squares found is written
    early = distilled(
        pipeline, tiny_folder, tmp_path / "b.safetensors", style, 99, stop=lambda: True
    )
    assert early.steps == 0
    assert load_file(tmp_path / "b.safetensors").keys() == load_file(again).keys()


def test_too_little_memory_for_a_fit_is_said(
    pipeline: Any, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(fitting, "noted", fail)
    style = network("style", 1, RELU, widths=WIDTHS)
    with pytest.raises(HypernetworkError, match="not enough memory to fit"):
        fitted(pipeline, tiny_folder, tmp_path / "x.safetensors", style)
    assert list(tmp_path.iterdir()) == []


def test_too_few_prompts_are_refused(pipeline: Any, tiny_folder: Path) -> None:
    with pytest.raises(HypernetworkError, match="at least 4"):
        Sampling(["a", "b", "a", " "]).split()


def test_a_list_in_order_is_not_measured_on_one_kind_alone() -> None:
    """Every fourth of a list with four or eight colors is always the same colors."""
    colors = ["red", "blue", "green", "white"]
    fitting, kept = Sampling([f"{n} on {c}" for n in range(12) for c in colors]).split()
    for prompts in (fitting, kept):
        assert {prompt.split()[-1] for prompt in prompts} == set(colors)
    assert not set(fitting) & set(kept)
    assert Sampling(general_prompts()).split() == Sampling(general_prompts()).split()


@pytest.mark.parametrize(("count", "checked", "learned"), [(4, 1, 2), (48, 6, 30), (240, 16, 180)])
def test_a_training_is_checked_on_prompts_that_nothing_else_uses(
    count: int, checked: int, learned: int
) -> None:
    """What it learns from it knows better than others: it would look good until the end."""
    sampling = Sampling([str(number) for number in range(count)])
    parts = [*sampling.learned_and_checked(), sampling.measured()]
    assert [len(part) for part in parts[:2]] == [learned, checked]
    assert len(set().union(*parts)) == sum(map(len, parts))


def test_the_command_has_prompts_of_its_own(tiny_folder: Path) -> None:
    general = argparse.Namespace(prompts=None, base=tiny_folder)
    assert len(_prompts(general)) == len(set(general_prompts())) == 240
    own = argparse.Namespace(prompts=None, base=_base("miniature"))
    assert "an eagle on red" in _prompts(own)


def test_the_command_writes_the_lora_and_the_sheet(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hn.write(network("style", 1, RELU, widths=WIDTHS), tmp_path / "style.pt")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS[:4]), encoding="utf-8")
    command = ["convert", str(tmp_path / "style.pt"), str(tmp_path / "lora.safetensors")]
    command += ["--to", "lora", "--base", str(tiny_folder), "--device", "cpu", "--steps", "1"]
    assert main([*command, "--fit", "none"]) == 2
    assert '"style" is not linear' in capsys.readouterr().err
    sheet = tmp_path / "sheet.png"
    command += ["--prompts", str(tmp_path / "prompts.txt"), "--sheet", str(sheet)]
    assert main([*command, "--fit", "least-squares"]) == 0
    assert "of the effect on the images at 0.5" in capsys.readouterr().out
    with Image.open(sheet) as image:
        assert image.width == 3 * image.height

    other = [*command, "--overwrite", "--train-steps", "2", "--batch", "2"]
    assert main([*other, "--rank", "3", "--multiplier-range", "1,0.4", "--format", "peft"]) == 0
    told = capsys.readouterr().out
    assert "layers at rank 3; " in told
    assert "of the effect on the images at 0.4, on prompts kept out" in told
    assert main([*other, "--rank", "auto"]) == 2
    assert "--rank auto doesn't go" in capsys.readouterr().err


def test_the_studio_fits_and_shows_the_sheet(
    pipeline: Any, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distilling, "MOST_IMAGES", 2)
    hn.write(network("style", 1, RELU, widths=WIDTHS), tmp_path / "style.safetensors")
    painter: Any = SimpleNamespace(
        checkpoint=tiny_folder,
        library=hn.Library([tmp_path]),
        pipeline=pipeline,
        default_cfg=2.0,
    )
    cancelled, told = threading.Event(), list[Update]()

    def tell(update: Update) -> None:
        told.append(update)
        if update.done > 6:  # in the middle of the training, which is then written as it is
            cancelled.set()

    order = Order(LORA, "x", ("style",), prompts=tuple(PROMPTS[:4]), training_steps=50)
    made = convert(painter, order, tmp_path, tell, cancelled)
    assert "of the effect on the images, on prompts kept out" in made.messages[0]
    assert made.sheet is not None
    with Image.open(made.sheet) as image:
        assert image.width == 3 * image.height
    assert load_file(made.path)
