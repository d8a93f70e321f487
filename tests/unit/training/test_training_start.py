"""Fresh networks, optimisers and gradient steps: what A1111's Create and trainer do, and what ours
does better."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import hypernetworks as hn
from hypernetworks.engine.initialising import (
    INITIALISATIONS,
    can_begin_at_zero,
    create_network,
    parameter_count,
)
from hypernetworks.engine.structure import ACTIVATIONS, Structure
from hypernetworks.errors import StructureError, TrainingSettingsError
from hypernetworks.training.creation import check_name
from hypernetworks.training.optimisers import Stepper, build_optimiser, optimiser_names
from hypernetworks.training.scaling import Scaler
from hypernetworks.training.settings import TrainingSettings

RELU = hn.Structure((1, 2, 1), "relu", activate_output=False)
SPREADS = {
    "Normal": 0.01,
    "XavierUniform": math.sqrt(2 / 768),
    "XavierNormal": math.sqrt(2 / 768),
    "KaimingUniform": math.sqrt(2 / 256),
    "KaimingNormal": math.sqrt(2 / 256),
}
"""Standard deviation of the first layer's weights, 256 to 512, by the papers' formulas."""


@pytest.mark.parametrize("initialisation", INITIALISATIONS)
def test_weights_are_drawn_as_their_names_say(initialisation: str) -> None:
    network = create_network("a", RELU, (256,), initialisation=initialisation, zero_last=False)
    first, last = (m for m in network.pairs[256][0].linear if isinstance(m, nn.Linear))
    assert float(first.weight.detach().std()) == pytest.approx(SPREADS[initialisation], rel=0.03)
    assert float(last.weight.detach().std()) > 0
    assert not first.bias.any()
    uniform = float(first.weight.detach().abs().max() / first.weight.detach().std())
    assert (uniform < 1.8) == ("Uniform" in initialisation)
    assert network.provenance.weight_initialization == initialisation


@pytest.mark.parametrize(
    "activation", [a for a in sorted(ACTIVATIONS) if "soft" not in a or a in ("softsign",)]
)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("output", [False, True])
def test_a_zero_last_layer_is_the_identity_and_learns(
    activation: str, norm: bool, output: bool
) -> None:
    structure = Structure((1, 2, 1), activation, activate_output=output, layer_norm=norm)
    if not can_begin_at_zero(structure):
        assert output
        with pytest.raises(StructureError, match="zero last layer"):
            create_network("a", structure, (16,))
        return
    network = create_network("a", structure, (16,))
    context = torch.randn(2, 5, 16)
    assert all(torch.equal(side, context) for side in network.transform(context))
    network.train()
    out, _ = network.transform(context)
    out.square().sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in network.pairs[16][0].parameters())


def test_some_activations_can_not_follow_a_zero_layer() -> None:
    assert not can_begin_at_zero(Structure((1, 1), "relu", dropout=(0, 0)))
    assert not can_begin_at_zero(Structure((1, 1), "sigmoid", dropout=(0, 0)))
    assert can_begin_at_zero(Structure((1, 1), "tanh", dropout=(0, 0)))


def test_a_seed_makes_the_network_and_leaves_the_generator() -> None:
    before = torch.get_rng_state()
    one, same, other = (create_network("a", RELU, (16,), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not all(
        torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


def test_sizes_are_told_before() -> None:
    structure = Structure(
        (1, 2, 2, 1), "swish", layer_norm=True, activate_output=False, dropout=(0, 0.3, 0.3, 0)
    )
    network = create_network("a", structure, (16, 24))
    assert parameter_count(structure, (16, 24)) == sum(p.numel() for p in network.parameters())
    assert round(parameter_count(hn.Structure(), (320, 640, 768, 1280)) * 4 / 2**20, 1) == 83.7


@pytest.mark.parametrize(
    ("widths", "changes", "match"),
    [
        ((), {}, "at least one"),
        ((16,), {"initialisation": "Orthogonal"}, "XavierUniform"),
        ((-1,), {}, "at least one"),
    ],
)
def test_networks_that_can_not_be_made(
    widths: tuple[int, ...], changes: dict[str, str], match: str
) -> None:
    with pytest.raises(StructureError, match=match):
        create_network("a", RELU, widths, **changes)  # type: ignore[arg-type]


def test_a_layer_of_no_width_is_refused() -> None:
    with pytest.raises(StructureError, match="leaves nothing"):
        create_network("a", Structure((1, 0.01, 1)), (16,))


@pytest.mark.parametrize(
    "name", ["", "a/b", "a\\b", "..", ".hidden", "a<b", "a:1", "None", "a ", "a.", "-a", "x" * 101]
)
def test_names_that_no_tag_can_have(name: str) -> None:
    with pytest.raises(TrainingSettingsError, match="can't be used"):
        check_name(name)


@pytest.mark.parametrize("name", ["ink", "Ünïcode", "water_elemental-2.1", "my style (v2)", "1"])
def test_names_that_any_tag_can_have(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", optimiser_names())
def test_every_optimiser_on_the_list_takes_a_step(name: str) -> None:
    parameter = nn.Parameter(torch.full((4, 4), 2.0))
    optimiser = build_optimiser(name.upper(), [parameter], 0.0, {})
    stepper = Stepper(optimiser, _scaler(enabled=False), 1.0, "norm")
    for _ in range(2):
        parameter.square().sum().backward()
        stepper.measure()
        stepper.step(0.1)
    assert bool((parameter < 2).all())


def test_schedule_free_steps_are_those_of_the_paper() -> None:
    """Algorithm 1 of arXiv 2405.15682, written with all three sets of weights, in float64."""
    parameter = nn.Parameter(torch.linspace(-1, 1, 6))
    stepper = Stepper(
        build_optimiser("schedulefreeadamw", [parameter], 0.1, {}),
        _scaler(enabled=False),
        0,
        "norm",
    )
    near, decay, weights = 0.9, 0.999, 0.0
    x = z = parameter.detach().double()
    squares = torch.zeros_like(x)

    for step in range(30):
        rate = 0.02 * min(1.0, (step + 1) / 10)
        y = near * x + (1 - near) * z
        torch.testing.assert_close(parameter.detach().double(), y, rtol=0, atol=2e-6)
        gradient = torch.sin(3 * y) + y
        squares = decay * squares + (1 - decay) * gradient**2
        scale = (squares / (1 - decay ** (step + 1))).sqrt() + 1e-8
        z = z - rate * (gradient / scale + 0.1 * y)
        weights += rate**2
        x = x + rate**2 / weights * (z - x)

        parameter.grad = torch.sin(3 * parameter.detach()) + parameter.detach()
        stepper.step(rate)

    live = parameter.detach().clone()
    with stepper.at_rest():
        torch.testing.assert_close(parameter.detach().double(), x, rtol=0, atol=2e-6)
        assert not torch.equal(parameter, live)
        with pytest.raises(RuntimeError, match="call train"):
            stepper.optimiser.step()
    assert torch.equal(parameter, live)


def test_schedule_free_optimisers_have_a_constant_rate_by_default() -> None:
    for name, shape, wanted in (
        ("ScheduleFreeAdamW", "auto", 1e-3),
        ("schedulefree.AdamWScheduleFree", "auto", 1e-3),
        ("AdamW", "auto", 5e-5),
        ("ScheduleFreeAdamW", "cosine", 5e-5),
    ):
        settings = TrainingSettings(1000, "1e-3", shape=shape, optimiser=name)
        assert settings.rates().at(999) == pytest.approx(wanted, rel=0.01)


def _scaler(*, enabled: bool, scale: float = 2.0**10) -> Scaler:
    return Scaler(init_scale=scale, enabled=enabled)


@pytest.mark.parametrize(("clip_by", "wanted"), [("norm", (-0.6, -0.8)), ("value", (-1.0, -1.0))])
def test_gradients_are_clipped_after_unscaling(clip_by: str, wanted: tuple[float, float]) -> None:
    """AUTOMATIC1111 clips scaled gradients: whatever the limit, next to nothing is left of them."""
    moved = {}
    for kind in ("ours", "AUTOMATIC1111's"):
        parameter = nn.Parameter(torch.zeros(2))
        optimiser = build_optimiser("SGD", [parameter], 0.0, {})
        scaler = _scaler(enabled=True)
        scaler.scale((parameter * torch.tensor([3.0, 4.0])).sum()).backward()
        if kind == "ours":
            stepper = Stepper(optimiser, scaler, 1.0, clip_by)
            assert stepper.measure() == pytest.approx(5.0)
            stepper.step(1.0)
        else:
            nn.utils.clip_grad_norm_([parameter], 1.0)
            scaler.unscale([parameter.grad])  # type: ignore[list-item]
            optimiser.step()
        moved[kind] = parameter.detach().clone()
    torch.testing.assert_close(moved["ours"], torch.tensor(wanted))
    assert float(moved["AUTOMATIC1111's"].norm()) < 0.01


def test_an_overflowing_step_is_left_out_and_the_scale_falls() -> None:
    parameter = nn.Parameter(torch.ones(2))
    scaler = _scaler(enabled=True)
    stepper = Stepper(build_optimiser("AdamW", [parameter], 0.0, {}), scaler, 1.0, "norm")
    scaler.scale((parameter * float("inf")).sum()).backward()
    assert not math.isfinite(stepper.measure())
    assert stepper.step(0.1)
    assert bool((parameter == 1).all())
    assert scaler.get_scale() == 2.0**9
