"""Whole trainings and generations on a device without float64, addresses and kernels that only CUDA
has.

Run by ``test_emulated_device.py`` in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit" / "training"))

import emulated  # noqa: E402
from toys import Toy, toy_examples, toy_settings  # noqa: E402

import hypernetworks as hn  # noqa: E402
from hypernetworks import devices  # noqa: E402
from hypernetworks.hosts.diffusers import MINIATURE_NETWORKS, Generation, Painter  # noqa: E402
from hypernetworks.hosts.diffusers.training import preset_job, train_job  # noqa: E402
from hypernetworks.library.inspection import inspect  # noqa: E402
from hypernetworks.training import train, validation  # noqa: E402
from hypernetworks.training.optimisers import optimiser_names  # noqa: E402
from hypernetworks.training.validation import ValidationLoss  # noqa: E402

DROPOUT = hn.Structure((1, 2, 1), "relu", activate_output=False, dropout=(0, 0.3, 0))
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "min-snr": {"min_snr": 5.0},
    "offset": {"noise_offset": 0.1},
    "ema": {"ema": 0.9},
    "values": {"clip_by": "value"},
    "no clip": {"clip": 0.0},
    "accumulation": {"accumulation": 2},
    "all": {
        "precision": "fp16",
        "min_snr": 5.0,
        "noise_offset": 0.1,
        "ema": 0.9,
        "accumulation": 2,
    },
}


@pytest.fixture(autouse=True)
def _few_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """The validation loss of few images would else take longer than the training."""
    monkeypatch.setattr(validation, "LEAST", 2 * len(validation.TIMES))


@pytest.fixture
def device() -> Iterator[torch.device]:
    with emulated.device() as found:
        yield found


def toy_on(device: torch.device, structure: hn.Structure | None = None) -> Toy:
    toy = Toy(structure)
    toy.handle.remove()
    toy.unet.to(device)
    toy.network.to(device, torch.float32)
    toy.network.train()
    toy.handle = hn.apply(toy.unet, [(toy.network, 1.0)])
    return toy


def trained(toy: Toy, folder: Path, device: torch.device | str, **changes: Any) -> list[float]:
    """Losses and validation losses of a short run."""
    measured = ValidationLoss(toy_examples(2), toy.contexts, 0)
    settings = toy_settings(steps=4, watch_every=2, save_every=2, **changes)
    run = toy.run(settings, folder, validation=measured, device=device)
    seen: list[float] = []
    train(run, on_step=lambda done: seen.extend([done.loss, done.validation or 0.0]))
    return seen


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.double(),
        lambda x: x.to(torch.float64),
        lambda x: torch.zeros((), dtype=torch.float64, device=x.device),
        lambda x: x.data_ptr(),
        lambda x: x + torch.ones(3),
    ],
)
def test_the_emulated_device_refuses(device: torch.device, wrong: Any) -> None:
    x = torch.ones(3, device=device)
    assert x.device == device
    with pytest.raises((TypeError, RuntimeError)):
        wrong(x)
    assert x.cpu().double().dtype == torch.float64


@pytest.mark.parametrize("options", OPTIONS)
def test_a_training_with_every_option(device: torch.device, tmp_path: Path, options: str) -> None:
    changes = OPTIONS[options]
    there = trained(toy_on(device), tmp_path / "there", device, **changes)
    if changes.get("precision", "fp32") == "fp32":
        here = trained(Toy(), tmp_path / "here", "cpu", **changes)
        assert there == pytest.approx(here, rel=1e-4)
    longer = toy_on(device).run(toy_settings(steps=6, **changes), tmp_path / "there", device=device)
    assert longer.step == 4
    train(longer)
    assert inspect(hn.read(tmp_path / "there" / "toy-6.safetensors"), Path("toy")).norms


def test_dropout_and_norms_of_a_network_that_is_there(device: torch.device, tmp_path: Path) -> None:
    toy = toy_on(device, DROPOUT)
    trained(toy, tmp_path, device)
    assert inspect(toy.network, Path("toy")).norms


@pytest.mark.parametrize("name", optimiser_names())
def test_every_optimiser_takes_steps(device: torch.device, tmp_path: Path, name: str) -> None:
    assert trained(toy_on(device), tmp_path, device, optimiser=name, rate="1e-4")


@pytest.mark.parametrize("activation", ["linear", "relu", "mish", "prelu", "softmax"])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_networks_of_every_kind_change_a_unet(
    device: torch.device, activation: str, layer_norm: bool
) -> None:
    toy = Toy()
    toy.handle.remove()
    toy.unet.to(device)
    network = hn.Hypernetwork.create(
        "toy", hn.Structure((1, 2, 1), activation, layer_norm=layer_norm), (16,)
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    here = Toy()
    here.handle.remove()
    latents, context = torch.randn(1, 4, 2, 2), torch.randn(1, 3, 16)
    with torch.no_grad():
        plain = here.unet(latents, None, context)
        with hn.apply(here.unet, [(network, 1.0)]):
            expected = here.unet(latents, None, context)
        with hn.apply(toy.unet, [(network, 1.0)]):
            made = toy.unet(latents.to(device), None, context.to(device))
    assert not torch.allclose(plain, expected)
    torch.testing.assert_close(made.cpu(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("half", [False, True])
def test_a_generation_on_the_miniature(device: torch.device, half: bool) -> None:
    library = hn.Library([MINIATURE_NETWORKS])
    painter = Painter(None, library, device=str(device), half=half)
    made = painter.generate(Generation("a red apple <hypernet:ink:0.8>", steps=2))
    assert made.messages == []
    assert len(set(made.pictures[0].image.getdata())) > 10


def test_a_training_on_the_miniature(device: torch.device, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for i in range(3):
        Image.new("RGB", (96, 96), (40 * i, 80, 20)).save(tmp_path / "pictures" / f"red {i}.png")
    painter = Painter(None, hn.Library([]), device=str(device), half=False)
    job = preset_job(
        "style",
        "dark",
        tmp_path / "pictures",
        painter,
        runs=tmp_path / "runs",
        previews=("a red apple",),
        preview_steps=2,
    )
    settings = replace(job.settings, steps=2, batch=1, watch_every=1, preview_every=2, min_snr=5.0)
    outcome = train_job(replace(job, settings=settings, memory="streamed"), painter)
    assert outcome.is_finished
    assert outcome.messages == ()
    assert devices.name_of(painter.pipeline.device) == "directml"
