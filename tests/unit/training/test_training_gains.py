"""Last layers that are learned as a gain times weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import DIM, Toy, same, toy_settings

import hypernetworks as hn
from hypernetworks.errors import TrainingStateError
from hypernetworks.training import TrainingStep, train
from hypernetworks.training.gains import GRADIENT, RATE, Gains


def test_gradients_are_those_of_the_product() -> None:
    """Of weights and of gains, as autograd has them where the layer is written as a product."""
    toy = Toy(zero_last=False)
    gains = Gains(toy.network)
    learned = gains.parameters()
    with torch.no_grad():
        learned[-1].copy_(torch.tensor([0.03, -0.05]))
    gains.write()
    torch.testing.assert_close(gains.values, torch.tensor([1.3, 0.5]))

    contexts = torch.randn(5, DIM, generator=torch.Generator().manual_seed(0))
    key, value = toy.network.pairs[DIM]
    (key(contexts).square().sum() + value(contexts).cos().sum()).backward()  # type: ignore[no-untyped-call]
    gains.collect()

    free = torch.tensor([1.3, 0.5], requires_grad=True)
    masters = [p.detach().clone().requires_grad_(True) for p in learned[-5:-1]]
    total = torch.zeros(())
    for number, (mlp, act) in enumerate(((key, torch.square), (value, torch.cos))):
        hidden = mlp.linear[:-1](contexts).detach()
        weight, bias = masters[2 * number : 2 * number + 2]
        total = total + act(hidden @ (free[number] * weight).T + free[number] * bias).sum()
    wanted = torch.autograd.grad(total, [*masters, free])

    for one, other in zip(learned[-5:-1], wanted[:-1], strict=True):
        torch.testing.assert_close(one.grad, other)
    torch.testing.assert_close(learned[-1].grad, wanted[-1] * RATE * GRADIENT)
    assert key.linear[-1].weight.grad is None
    assert key.linear[0].weight.grad is not None


def test_gains_are_learned_and_files_hold_the_product(tmp_path: Path) -> None:
    plain = toy_settings(optimiser="ScheduleFreeAdamW", warm_up=0, steps=20)
    settings = replace(plain, gains="on")
    toy = Toy()
    run = toy.run(settings, tmp_path)
    train(run)

    gains = run._learned.gains
    assert gains is not None
    assert ((gains.values - 1).abs() > 0.01).all()
    learned = gains.parameters()
    for number, mlp in enumerate(toy.network.pairs[DIM]):
        product = gains.values[number] * learned[-5 + 2 * number]
        assert torch.equal(mlp.linear[-1].weight, product)
    file = hn.read(tmp_path / "toy-20.safetensors")
    assert same(list(file.parameters()), toy.weights())

    without = Toy()
    train(without.run(plain))
    assert not same(without.weights(), toy.weights())


@pytest.mark.parametrize(
    ("optimiser", "ema"), [("ScheduleFreeAdamW", 0.0), ("AdamW", 0.0), ("AdamW", 0.9)]
)
def test_a_run_with_gains_resumes_bit_for_bit(tmp_path: Path, optimiser: str, ema: float) -> None:
    settings = toy_settings(gains="on", optimiser=optimiser, ema=ema, watch_every=0, save_every=3)
    whole = Toy()
    train(whole.run(settings, tmp_path / "whole"))

    def stop(done: TrainingStep) -> None:
        if done.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Toy().run(settings, tmp_path / "parts"), on_step=stop)
    parts = Toy()
    run = parts.run(settings, tmp_path / "parts")
    assert run.step == 5
    with run.at_rest():
        pass
    train(run)
    assert same(whole.weights(), parts.weights())
    assert not same(whole.weights(), Toy().weights())


@pytest.mark.parametrize(("begun", "then"), [("on", "off"), ("off", "on")])
def test_gains_neither_come_nor_go_within_a_run(tmp_path: Path, begun: str, then: str) -> None:
    train(Toy().run(toy_settings(gains=begun), tmp_path))
    with pytest.raises(TrainingStateError, match=f"continue with gains {begun}"):
        Toy().run(toy_settings(gains=then, steps=10), tmp_path)


def test_mlps_that_end_in_something_else_are_learned_as_they_are() -> None:
    toy = Toy(hn.Structure((1, 2, 1), "relu", activate_output=True), zero_last=False)
    gains = Gains(toy.network)
    *rest, last = gains.parameters()
    assert same(rest, list(toy.network.parameters()))
    assert last.numel() == 0
    train(toy.run(toy_settings(gains="on")))
    assert not same(toy.weights(), Toy(toy.network.structure, zero_last=False).weights())
