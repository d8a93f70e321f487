"""Training in less memory: weights in fp8 or on the CPU change nothing but the numbers' precision,
and what is chosen fits.
"""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")

from diffusers import UNet2DConditionModel

import hypernetworks as hn
from benchmarks.gpu.models import FULL
from hypernetworks.hosts.diffusers import Painter
from hypernetworks.hosts.diffusers.training import preset_job, stored, train_job
from hypernetworks.hosts.diffusers.training.memory import Needs, free_bytes, needs, plan
from hypernetworks.hosts.diffusers.training.stored import Fp8, Remote
from hypernetworks.library import Library

SMALL = {
    "cross_attention_dim": 24,
    "attention_head_dim": 2,
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
GB = 1e9


@pytest.fixture
def unet(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A small UNet, whose weights all count as large."""
    monkeypatch.setattr(stored, "SMALLEST", 256)
    torch.manual_seed(0)
    return UNet2DConditionModel(**SMALL).eval().requires_grad_(False)


def network() -> hn.Hypernetwork:
    torch.manual_seed(1)
    made = hn.Hypernetwork.create("x", hn.Structure((1, 2, 1), "relu"), (16, 24, 32))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    made.train()
    return made


def gradients(unet: Any, *, twice: bool = False) -> list[torch.Tensor]:
    """Of one training step."""
    made = network()
    torch.manual_seed(2)
    sample, context = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 24)
    (unet.enable_gradient_checkpointing if twice else unet.disable_gradient_checkpointing)()
    with hn.apply(unet, [(made, 1.0)]):
        unet(sample, torch.tensor(500), context).sample.square().mean().backward()
    return [parameter.grad.clone() for parameter in made.parameters() if parameter.grad is not None]


# ------------------------------------------------------------------ weights


def test_fp8_keeps_three_bits_of_every_usual_weight_and_is_half_as_large_as_fp16() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 48, 3, 3) * torch.logspace(-6, 2, 64).view(-1, 1, 1, 1)
    kept = Fp8(weight)
    error = (kept.decoded() - weight).abs()
    assert float((error / weight.abs().clamp_min(1e-30)).median()) < 0.03
    assert bool((error <= weight.abs() / 16 + weight.abs().amax((1, 2, 3), True) * 2**-16).all())
    assert kept.nbytes < 0.6 * weight.numel() * 2
    assert torch.equal(Fp8(kept.decoded()).decoded(), kept.decoded())


@pytest.mark.parametrize("twice", [False, True], ids=["kept", "checkpointing"])
@pytest.mark.parametrize("storage", ["fp8", "streamed"])
def test_training_is_that_of_the_same_weights_in_place(
    unet: Any, storage: str, twice: bool
) -> None:
    """Streamed weights are the weights; fp8's are the rounded ones."""
    original = {name: p.clone() for name, p in unet.named_parameters()}
    plain = gradients(unet)
    with stored.stored(unet, storage):
        layers = [layer for layer in unet.modules() if "forward" in vars(layer)]
        assert len(layers) > 30
        assert all(bool(layer.weight.isnan().all()) for layer in layers)
        found = gradients(unet, twice=twice)
    assert all(torch.equal(p, original[name]) for name, p in unet.named_parameters())
    assert not [layer for layer in unet.modules() if "forward" in vars(layer)]

    for layer in layers if storage == "fp8" else []:
        layer.weight.data = Fp8(layer.weight).decoded()
    expected = gradients(unet)
    assert len(expected) == len(plain) > 10
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    changed = [not torch.allclose(a, b, rtol=1e-3) for a, b in zip(plain, found, strict=True)]
    assert any(changed) is (storage == "fp8")


def test_without_keeping_the_rounded_weights_come_back(unet: Any) -> None:
    layer = stored.large_layers(unet)[0]
    rounded = Fp8(layer.weight).decoded()  # type: ignore[arg-type]
    with stored.stored(unet, "fp8", keep=False):
        pass
    assert torch.equal(layer.weight, rounded)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Fp8, Remote])
def test_no_decoded_weight_outlives_its_layer(
    unet: Any, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's own layers would keep all of them until the backward pass."""
    alive: list[Any] = []
    most, decoded = [0], kind.decoded

    def counted(self: Any) -> torch.Tensor:
        alive[:] = [one for one in alive if one() is not None]
        made: torch.Tensor = decoded(self).clone()
        alive.append(weakref.ref(made))
        most[0] = max(most[0], len(alive))
        return made

    monkeypatch.setattr(kind, "decoded", counted)
    with stored.stored(unet, "fp8" if kind is Fp8 else "streamed", keep=False):
        bytes_left = sum(p.untyped_storage().nbytes() for p in unet.parameters())
        gradients(unet)
    gc.collect()
    assert most[0] <= 2
    assert bytes_left < 0.2 * sum(p.numel() * p.element_size() for p in unet.parameters())


# ------------------------------------------------------------------ what is chosen


PARAMETERS = {"SD1.5": 21_900_000, "SDXL": 50_000_000}


@pytest.fixture(scope="module")
def full() -> dict[str, Any]:
    with torch.device("meta"):
        return {name: UNet2DConditionModel(**config) for name, config in FULL.items()}


def needed(full: dict[str, Any], family: str, batch: int, edge: int) -> Needs:
    size = (edge, edge)
    return needs(full[family], torch.bfloat16, PARAMETERS[family], batch, [size])


@pytest.mark.parametrize(
    ("family", "batch", "edge", "free", "chosen"),
    [
        ("SD1.5", 1, 512, 23.0, ("whole", False)),
        ("SD1.5", 1, 512, 5.5, ("whole", False)),
        ("SD1.5", 4, 512, 5.5, ("whole", True)),
        ("SD1.5", 1, 512, 3.0, ("whole", True)),
        ("SD1.5", 1, 512, 2.3, ("fp8", True)),
        ("SDXL", 1, 1024, 23.0, ("whole", False)),
        ("SDXL", 1, 1024, 11.0, ("whole", True)),
        ("SDXL", 1, 1024, 7.2, ("fp8", True)),
        ("SDXL", 1, 1024, 4.0, ("streamed", True)),
    ],
)
def test_what_is_chosen_is_the_fastest_that_fits(
    full: dict[str, Any], family: str, batch: int, edge: int, free: float, chosen: tuple[str, bool]
) -> None:
    found = plan(needed(full, family, batch, edge), free * GB)
    assert (found.storage, found.checkpointing) == chosen, found
    assert found.bytes <= free * GB
    assert bool(found.message) is (chosen != ("whole", False))
    assert ("checkpointing" in found.message) is chosen[1]
    assert ("fp8" in found.message) is (chosen[0] == "fp8")


def test_sd15_trains_within_6_gb_and_sdxl_within_8(full: dict[str, Any]) -> None:
    """The context of CUDA and a desktop take some of what the card is named after."""
    for batch in (1, 2, 4, 8):
        assert plan(needed(full, "SD1.5", batch, 512), 5.2 * GB).bytes <= 5.2 * GB
    for batch in (1, 2):
        assert plan(needed(full, "SDXL", batch, 1024), 6.8 * GB).bytes <= 6.8 * GB


def test_what_is_asked_for_is_done_and_what_can_not_fit_is_told(full: dict[str, Any]) -> None:
    sdxl = needed(full, "SDXL", 1, 1024)
    assert plan(sdxl, 80 * GB, "fp8").storage == "fp8"
    assert plan(sdxl, 80 * GB, "streamed", "on").checkpointing
    assert plan(sdxl, None).storage == "whole"
    assert plan(sdxl, None).message == ""
    assert "even that may be too much" in plan(sdxl, 1 * GB).message
    fixed = plan(sdxl, 6 * GB, "whole", "off")
    assert (fixed.storage, fixed.checkpointing) == ("whole", False)
    assert "`memory` auto" in fixed.message
    kept = plan(sdxl, 13 * GB, "auto", "off")
    assert (kept.storage, kept.checkpointing) == ("fp8", False)


def test_free_memory_counts_what_torch_keeps_and_ends_at_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: dict[str, Any] = {
        "mem_get_info": lambda _: (5 * GB, 24 * GB),
        "memory_reserved": lambda _: 3 * GB,
        "memory_allocated": lambda _: 2 * GB,
    }
    monkeypatch.setattr(torch, "xpu", SimpleNamespace(**told))
    assert free_bytes(torch.device("xpu")) == 6 * GB
    limited = SimpleNamespace(**told, get_per_process_memory_fraction=lambda _: 0.25)
    monkeypatch.setattr(torch, "xpu", limited)
    assert free_bytes(torch.device("xpu")) == 4 * GB
    assert free_bytes(torch.device("cpu")) is None
    assert free_bytes(torch.device("mps")) is None


# ------------------------------------------------------------------ a whole training


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for i in range(2):
        Image.new("RGB", (48, 48), (90 * i, 40, 20)).save(tmp_path / "pictures" / f"wall {i}.png")
    return tmp_path


@pytest.mark.parametrize("memory_asked", ["auto", "streamed"])
def test_a_training_in_little_memory_says_so_and_leaves_the_model_as_it_was(
    folder: Path, memory_asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hypernetworks.hosts.diffusers.training import frozen_model

    painter = Painter(None, Library([]))
    before = {name: p.clone() for name, p in painter.pipeline.unet.named_parameters()}
    used: list[str] = []
    through = stored.stored

    def noted(unet: Any, storage: str, **named: Any) -> Any:
        used.append(storage)
        return through(unet, storage, **named)

    monkeypatch.setattr(frozen_model, "stored", noted)
    monkeypatch.setattr(frozen_model, "free_bytes", lambda _: 0.0)
    job = preset_job("style", "x", folder / "pictures", painter, runs=folder / "runs")
    settings = replace(job.settings, steps=1, batch=2, watch_every=0)
    sizes = replace(job.picture_settings, width=48, height=48)
    job = replace(job, settings=settings, picture_settings=sizes, memory=memory_asked)

    outcome = train_job(job, painter)
    assert outcome.is_finished
    assert used == ["streamed"]
    (message,) = [m for m in outcome.messages if "are free" in m]
    assert ("stay in the CPU's memory" in message) is (memory_asked == "auto")
    assert "`memory` auto" not in message
    assert all(torch.equal(p, before[n]) for n, p in painter.pipeline.unet.named_parameters())


@pytest.mark.parametrize("with_fp8", [True, False])
def test_memory_that_runs_out_is_answered_twice(
    with_fp8: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradient checkpointing first, then fp8, or streaming where there is none."""
    from hypernetworks.hosts.diffusers.training import session

    assert stored.has_fp8(torch.device("cpu"))
    monkeypatch.setattr(session, "has_fp8", lambda _: with_fp8)
    from hypernetworks.training.gradients import Gradients

    painter = Painter(None, Library([]))
    left, accumulate = [2], Gradients.accumulate

    def full_twice(self: Gradients, step: int) -> tuple[float, float]:
        if left[0]:
            left[0] -= 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return accumulate(self, step)

    monkeypatch.setattr(Gradients, "accumulate", full_twice)
    job = preset_job("style", "x", folder / "pictures", painter, runs=folder / "runs")
    settings = replace(job.settings, steps=1, batch=2, watch_every=0)
    sizes = replace(job.picture_settings, width=48, height=48)
    outcome = train_job(replace(job, settings=settings, picture_settings=sizes), painter)
    assert outcome.is_finished
    assert [m.split(":")[0] for m in outcome.messages if "memory ran out" in m] == [
        "memory ran out, so gradient checkpointing is on",
        "memory ran out, so the UNet's weights "
        + ("are stored in fp8" if with_fp8 else "stay in the CPU's memory"),
    ]
