"""What the UNet is asked to predict, how its error is weighed, and the learning rate."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypernetworks.errors import TrainingSettingsError
from hypernetworks.training import NoiseSchedule, RateSchedule, TrainingSettings
from hypernetworks.training.objective import losses, with_offset


def sd_schedule(prediction: str, zero_snr: bool = False) -> NoiseSchedule:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        rescale_betas_zero_snr=zero_snr,
    )
    return NoiseSchedule(scheduler.alphas_cumprod, prediction)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_targets_are_those_of_the_field(prediction: str) -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    schedule = sd_schedule(prediction)
    latents, noise, times = (
        torch.randn(3, 4, 2, 2),
        torch.randn(3, 4, 2, 2),
        torch.tensor([0, 500, 999]),
    )
    noisy, target = schedule.noisy_and_target(latents, noise, times)
    wanted = noise if prediction == "epsilon" else scheduler.get_velocity(latents, noise, times)
    torch.testing.assert_close(noisy, scheduler.add_noise(latents, noise, times))
    torch.testing.assert_close(target, wanted)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_those_of_the_field(prediction: str) -> None:
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    schedule, times = sd_schedule(prediction), torch.arange(0, 1000, 37)
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    snr = compute_snr(scheduler, times)
    wanted = snr.clamp(max=5.0) / (snr + 1 if prediction == "v_prediction" else snr)
    torch.testing.assert_close(schedule.min_snr_weights(times, 5.0), wanted, rtol=1e-4, atol=1e-6)
    last = sd_schedule(prediction, zero_snr=True).min_snr_weights(torch.tensor([999]), 5.0)
    assert last.item() == pytest.approx(1.0 if prediction == "epsilon" else 0.0, abs=1e-6)


def test_noise_offset_moves_channels_as_a_whole() -> None:
    noise, offset = torch.randn(2, 4, 3, 3), torch.randn(2, 4)
    moved = with_offset(noise, offset, 0.1) - noise
    torch.testing.assert_close(moved, 0.1 * offset[:, :, None, None].expand_as(moved))
    assert torch.equal(with_offset(noise, offset, 0.0), noise)


def test_weights_of_one_change_no_loss() -> None:
    prediction, target = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    assert torch.equal(
        losses(prediction, target), losses(prediction, target, torch.ones(2, 1, 3, 5))
    )


def test_other_predictions_are_refused() -> None:
    with pytest.raises(TrainingSettingsError, match="epsilon or v_prediction"):
        NoiseSchedule(torch.ones(3), "sample")


def a1111_rate(pieces: list[tuple[float, int]], step: int) -> float:
    """The webui's rule, in words: a piece holds until its step is reached; -1 is the end."""
    for rate, last in pieces:
        if last == -1 or step < last:
            return rate
    return pieces[-1][0]


@given(
    st.lists(st.floats(1e-8, 1.0), min_size=1, max_size=5),
    st.lists(st.integers(1, 2000), min_size=5, max_size=5, unique=True),
    st.booleans(),
)
def test_rates_are_read_as_the_webui_reads_them(
    rates: list[float], steps: list[int], open_end: bool
) -> None:
    pieces = list(zip(rates, sorted(steps), strict=False))
    if open_end:
        pieces[-1] = (pieces[-1][0], -1)
    text = ", ".join(f"{rate!r}:{last}" for rate, last in pieces)
    schedule = RateSchedule.parse(text, 3000)
    for step in (0, 1, *(last - 1 for _, last in pieces), *(last for _, last in pieces), 2999):
        if step >= 0:
            assert schedule.at(step) == a1111_rate(pieces, step)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ",
        "fast",
        "-1e-4",
        "0",
        "nan",
        "inf",
        "1e-4:",
        "1e-4:x",
        "1e-4:0",
        "1e-4:200,1e-5:100",
        "1:2:3",
    ],
)
def test_rates_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(TrainingSettingsError, match="learning rate"):
        RateSchedule.parse(text, 100)


@given(
    st.integers(1, 400),
    st.integers(0, 50),
    st.integers(0, 4),
    st.sampled_from(["constant", "linear", "cosine"]),
)
def test_rates_stay_between_floor_and_peak(
    steps: int, warm_up: int, restarts: int, shape: str
) -> None:
    schedule = RateSchedule.parse(
        "2", steps, shape=shape, warm_up=warm_up, restarts=restarts, floor=0.1
    )
    rates = [schedule.at(step) for step in range(steps)]
    assert all(0 < rate <= 2 for rate in rates)
    assert all(rate >= 0.2 - 1e-9 for rate in rates[warm_up:])
    assert rates[:warm_up] == sorted(rates[:warm_up])
    if steps > warm_up:
        assert rates[warm_up] == pytest.approx(2.0)


def test_a_rate_in_steps_is_as_written_and_one_rate_falls() -> None:
    settings = TrainingSettings(steps=2000, rate="1e-4:500, 1e-5", warm_up=0)
    assert [settings.rates().at(step) for step in (0, 499, 500, 1999)] == [1e-4, 1e-4, 1e-5, 1e-5]
    assert TrainingSettings(steps=400, rate="1e-4:500, 1e-5", warm_up=0).rates().at(399) == 1e-4
    assert TrainingSettings(steps=100, rate="1").rates().at(99) < 0.1
    assert (
        TrainingSettings(steps=30, rate="1").rates().at(15) == 1.0
    )  # the warm-up leaves half of the steps
    assert TrainingSettings(steps=1, rate="1").rates().at(0) == 1.0


def test_a_cosine_begins_anew_at_each_restart() -> None:
    schedule = RateSchedule.parse("1", 310, shape="cosine", warm_up=10, restarts=2, floor=0.0)
    rates = [schedule.at(step) for step in range(310)]
    assert [step for step in range(11, 310) if rates[step] > rates[step - 1]] == [110, 210]
    assert rates[60] == pytest.approx(0.5)
    assert rates[109] < 1e-3
    assert math.isclose(rates[110], 1.0)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(TrainingSettingsError, match="constant, linear, cosine"):
        RateSchedule.parse("1e-4", 10, shape="square")


def test_huber_is_the_square_of_small_errors_and_forgives_large_ones() -> None:
    small, large, zero = torch.full((1, 1, 1, 1), 1e-3), torch.full((1, 1, 1, 1), 10.0), 0.0
    target = torch.full((1, 1, 1, 1), zero)
    assert losses(small, target, kind="huber").item() == pytest.approx(1e-6, rel=0.01)
    assert losses(large, target, kind="huber").item() == pytest.approx(2 * 0.1 * 9.9, rel=0.01)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_debiased_weights_are_those_of_the_field(prediction: str) -> None:
    schedule, times = sd_schedule(prediction), torch.tensor([10, 500, 999])
    power = schedule.alphas_cumprod[times].double()
    snr = power / (1 - power)
    expected = snr.rsqrt() if prediction == "epsilon" else 1 / (snr + 1)
    assert torch.allclose(schedule.debiased_weights(times).double(), expected, rtol=1e-5)
    assert sd_schedule(prediction, zero_snr=True).debiased_weights(times).isfinite().all()


def test_noise_levels_for_styles_are_mostly_noisy() -> None:
    schedule, random = sd_schedule("epsilon"), Random(0)
    times = [schedule.draw_time(random, "style") for _ in range(4000)]
    assert min(times) >= 0
    assert max(times) < 1000
    power = schedule.alphas_cumprod[torch.tensor(times)].double()
    logs = (power / (1 - power)).log()
    assert logs.median().item() == pytest.approx(-5.36, abs=0.7)  # noisier is not to be had
    assert sorted(schedule.draw_time(Random(n), "uniform") for n in range(5))[0] < 500
