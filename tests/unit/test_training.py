"""The training loop: it learns, resumes exactly, stops on nonsense, and touches nothing but the network."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

import hypernetworks as hn
from hypernetworks.errors import TrainingError
from hypernetworks.training import Batch, TrainingSettings, TrainingStep, train
from hypernetworks.training.objective import NoiseSchedule

DIM = 16
SCHEDULE = NoiseSchedule(torch.full((20,), 1e-4), "v_prediction")  # nearly pure noise: the context alone tells


class ToyUnet(nn.Module):
    """One cross-attention over the context, in front of a pointwise map of the latents."""

    def __init__(self) -> None:
        super().__init__()
        self.attn2 = nn.Module()
        self.attn2.to_q, self.attn2.to_k, self.attn2.to_v = (nn.Linear(n, DIM) for n in (4, DIM, DIM))
        self.out = nn.Linear(DIM, 4)

    def forward(self, latents: torch.Tensor, times: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        query = self.attn2.to_q(latents.flatten(2).transpose(1, 2))
        mixed = nn.functional.scaled_dot_product_attention(query, self.attn2.to_k(context), self.attn2.to_v(context))
        return self.out(mixed).transpose(1, 2).reshape(latents.shape)


def draw(generator: torch.Generator) -> Batch:
    context = torch.randn(4, 3, DIM, generator=generator)
    return Batch(context.mean((1, 2)).view(4, 1, 1, 1).expand(4, 4, 2, 2).contiguous(), context)


def run(
    folder: Path | None, steps: int, total: int = 8, activation: str = "relu"
) -> tuple[hn.Hypernetwork, list[TrainingStep]]:
    """Train up to ``steps`` of ``total``; the network starts anew each time, as in a fresh process."""
    torch.manual_seed(3)
    unet = ToyUnet().requires_grad_(False)
    network = hn.Hypernetwork.create("toy", hn.Structure((1, 2, 1), activation, activate_output=False), (DIM,))
    seen: list[TrainingStep] = []

    def on_step(step: TrainingStep) -> None:
        seen.append(step)
        if step.step == steps:
            raise StopIteration

    settings = TrainingSettings(total, rate=1e-2, warm_up=2, save_every=2)
    before = [p.clone() for p in unet.parameters()]
    with hn.apply(unet, [(network, 1.0)]), suppress(StopIteration):
        train(network, unet, draw, SCHEDULE, settings, folder=folder, on_step=on_step)
    assert all(torch.equal(a, b) for a, b in zip(before, unet.parameters(), strict=True))
    return network, seen


def test_the_loss_falls_and_only_the_network_changes() -> None:
    network, seen = run(None, 60, 60)
    first, last = (sum(s.loss for s in part) / len(part) for part in (seen[:10], seen[-10:]))
    assert last < 0.8 * first
    assert network.provenance.step == 60
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_a_fresh_network_is_the_identity() -> None:
    network = hn.Hypernetwork.create("toy", hn.Structure((1, 2, 1), "relu", activate_output=False), (DIM,))
    context = torch.randn(1, 5, DIM)
    assert all(torch.equal(side, context) for side in network.transform(context, 1.0))


def test_an_interrupted_run_continues_bit_for_bit(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", 8)
    run(tmp_path / "parts", 4)
    parts, seen = run(tmp_path / "parts", 8)
    assert [s.step for s in seen] == [5, 6, 7, 8]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_saved_files_hold_the_step_they_say(tmp_path: Path) -> None:
    run(tmp_path, 8)
    for step in (2, 4, 6, 8):
        assert hn.read(tmp_path / f"toy-{step}.safetensors").provenance.step == step
    assert not list(tmp_path.glob(".writing-*"))


def test_training_draws_nothing_from_the_global_generator() -> None:
    torch.manual_seed(5)
    unet = ToyUnet().requires_grad_(False)
    network = hn.Hypernetwork.create("toy", hn.Structure(), (DIM,))
    before = torch.get_rng_state()
    with hn.apply(unet, [(network, 1.0)]):
        train(network, unet, draw, SCHEDULE, TrainingSettings(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    network = hn.Hypernetwork.create("toy", hn.Structure(), (DIM,))
    with pytest.raises(TrainingError, match="learning rate"):
        train(network, lambda noisy, *_: noisy * float("nan"), draw, SCHEDULE, TrainingSettings(2))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_targets_are_those_of_the_field(prediction: str) -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    schedule = NoiseSchedule(scheduler.alphas_cumprod, prediction)
    latents, noise, times = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.tensor([0, 500, 999])
    noisy, target = schedule.noisy_and_target(latents, noise, times)
    wanted = noise if prediction == "epsilon" else scheduler.get_velocity(latents, noise, times)
    torch.testing.assert_close(noisy, scheduler.add_noise(latents, noise, times))
    torch.testing.assert_close(target, wanted)
