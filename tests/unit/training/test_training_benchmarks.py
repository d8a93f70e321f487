"""What the sweep and the adapter benchmark count, without training anything; and that the sweep's
default is the one that ``train`` has.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conversion_cases import WIDTHS, small_unet
from laws.small_ldm import CONTEXT

import hypernetworks as hn
from benchmarks import gains, sweep
from benchmarks.adapters import report
from benchmarks.adapters.__main__ import MOST_TRIED, next_rate
from benchmarks.adapters.methods import MLP, SMALL, Sizes, methods
from benchmarks.styled import Cell
from hypernetworks.engine.initialising import create_network
from hypernetworks.hosts.diffusers.training import preset_job
from hypernetworks.hosts.diffusers.training.job import rate_with

MINIATURE: Any = SimpleNamespace(default_size=96, size_step=32, is_miniature=True)


def result(name: str, cell: Cell, loss: float) -> dict[str, Any]:
    return {"setting": name, "cell": [cell.style, cell.images, cell.seed], "test": loss}


def test_the_default_of_the_sweep_is_that_of_training() -> None:
    job = preset_job("style", "a", Path("x"), MINIATURE)
    setting, count = sweep.DEFAULT, 24
    swept = sweep.settings_of(setting, sweep.FIRST, count)
    for name in ("rate", "batch", "optimiser", "shape", "warm_up", "loss", "ema", "gains"):
        assert getattr(swept, name) == getattr(job.settings, name), name
    assert setting.initialisation == job.creation.initialisation
    assert setting.zero_last == job.creation.zero_last
    assert setting.layers == job.creation.structure.layer_structure
    assert swept.steps * swept.batch == sweep.EPOCHS * count


def test_other_optimisers_get_their_own_rate() -> None:
    """On the miniature, schedule-free optimisers have another one than those whose rate falls."""
    full_size: Any = SimpleNamespace(is_miniature=False)
    assert rate_with("ScheduleFreeAdamW", MINIATURE) == "3e-3"
    assert rate_with("AdamW", MINIATURE) == "2e-3"
    assert rate_with("AdamW", full_size) is None
    assert rate_with("ScheduleFreeAdamW", full_size) is None
    assert rate_with("torch.optim.Adam", full_size) == "0.001"


def test_the_sweep_halves() -> None:
    """Everything on the first cell, then the best; what is done is not done again."""
    assert [s for s, _ in sweep.planned([])][: len(sweep.SETTINGS)] == list(sweep.SETTINGS)
    best = sweep.SETTINGS[1]
    first = [
        result(s.name, sweep.FIRST, 0.1 if s is best else 0.2 + i)
        for i, s in enumerate(sweep.SETTINGS)
    ]
    second = [pair for pair in sweep.planned(first) if pair[1].style == "ink"]
    assert {s.name for s, cell in second if cell == Cell("ink", 24, 0)} == {
        sweep.DEFAULT.name,
        best.name,
    }
    last = list(sweep.planned(first))[-1][1]
    assert last == Cell("ink", 48, 2)


def test_the_table_compares_in_the_same_cells() -> None:
    cells = (sweep.FIRST, Cell("ink", 24, 0))
    rows = [result(sweep.DEFAULT.name, cell, 0.2) for cell in cells]
    rows += [result(sweep.SETTINGS[0].name, cells[0], 0.1)]
    printed = sweep.table(rows)
    assert f"| {sweep.SETTINGS[0].name} | 1 | 0.1000 | -50.0% |" in printed
    assert f"| {sweep.DEFAULT.name} | 2 | 0.2000 | +0.0% |" in printed


def test_what_was_tried_since_is_compared_with_one_setting() -> None:
    """Each has a name of its own, and further seeds come last."""
    known = [s.name for s in (*sweep.SETTINGS, *sweep.VARIANTS, *sweep.SINCE)]
    assert len(set(known)) == len(known)
    assert all(setting != sweep.BASE for setting in sweep.SINCE)

    cells = [cell for setting, cell in sweep.planned_since([]) if setting == sweep.BASE]
    assert [cell.seed for cell in cells] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert {cell.images for cell in cells} == {24}


@pytest.mark.parametrize("shared_by", ["width", "block", "projection"])
def test_a_gain_multiplies_what_the_network_adds(shared_by: str) -> None:
    """All at 0.5 are the multiplier 0.5; their gradients reach the parameters."""
    unet = small_unet()
    inputs = torch.randn(2, 4, 16, 16), torch.tensor([3.0, 500.0]), torch.randn(2, 5, CONTEXT)
    network = create_network(
        "a", hn.Structure((1, 2, 1), "relu", activate_output=False), WIDTHS, zero_last=False
    )
    with hn.apply(unet, [(network, 0.5)]):
        half = unet(*inputs)

    learned = gains.Gained.of(network, gains.Gains(unet, shared_by))
    learned.train()
    with hn.apply(unet, [(learned, 1.0)]), learned.gains.acting():
        whole = unet(*inputs)
        with torch.no_grad():
            learned.gains.parameter.fill_(-0.5 / gains.RATE)
        halved = unet(*inputs)
        halved.square().mean().backward()

    torch.testing.assert_close(halved, half)
    assert not torch.allclose(whole, half)
    gradient = [*learned.parameters()][-1].grad
    assert gradient is not None
    assert gradient.count_nonzero() == len(learned.gains.values)


def test_losses_at_equal_time_lie_between_the_measurements() -> None:
    curve = [(1.0, 0.4), (3.0, 0.2)]
    assert report._at(curve, 2.0) == pytest.approx(0.3)
    assert report._at(curve, 0.5) == 0.4
    assert report._at(curve, 9.0) == 0.2


SD1 = Sizes(
    tuple((inputs, width) for width in (320, 640, 1280) for inputs in (width, width, 768, 768))
)


def test_methods_follow_the_size_of_the_model() -> None:
    names = [method.name for method in methods(SD1)]
    assert len(set(names)) == len(names)
    assert "OFT, blocks of 64" in names
    each = sum(inputs + outputs for inputs, outputs in SD1.projections)
    for structure in (MLP, SMALL):
        rank = SD1.rank(structure)
        assert (rank - 1) * each < SD1.parameters(structure) <= rank * each
        assert any(name == f"LoRA, rank {rank}" for name in names)


def test_a_search_ends_where_both_neighbours_are_worse() -> None:
    losses = {0.5: 0.3, 1.0: 0.2, 2.0: 0.1, 4.0: 0.4, 8.0: float("nan")}
    tried: dict[float, float] = {}
    while rate := next_rate(tried, 1.0):
        tried[rate] = losses[rate]
    assert list(tried) == [1.0, 2.0, 4.0]
    assert next_rate({8.0: losses[8.0]}, 8.0) == 4.0  # down from where it goes wrong
    assert next_rate({2.0**-i: 1 - i / 10 for i in range(MOST_TRIED)}, 1.0) is None


ROW = {
    "method": "a", "parameters": 2**20, "curve": [[1.0, 0.5]], "steps": 4, "test": 0.5, "drift": 1.0,
    "recall": 0.5, "distance": 9.0, "half_distance": 8.0, "seconds": 1.0, "half_seconds": 2.0,
    "cell": ["night", 24, 0],
}  # fmt: skip


def test_the_table_has_dashes_where_nothing_is_measured() -> None:
    head, line, row = report.table([ROW]).splitlines()
    assert head.count("|") == line.count("|") == row.count("|")
    assert row == (
        "| a | 1,048,576 | 1 | 0.5000 | 0.5000 | 50% | 9, 8 | 1.00 | – | 0.25 | 1.00, 2.00 | 2.00 |"
    )
    of_user = {key: ROW[key] for key in ROW if key not in ("recall", "distance", "half_distance")}
    plain = report.table([of_user | {"plain_loss": 0.25}]).splitlines()[2:]
    assert plain[0].startswith("| no adapter | 0 | 1 | 0.2500 |")  # which is better here
    assert "| 0.5000 | – | – | 1.00 |" in plain[1]


def test_results_are_written_as_peft_has_them() -> None:
    row = {
        "method": "IA3", "cell": ["night", 24, 0], "parameters": 4, "curve": [[1.0, 0.5], [2.0, 0.4]], "steps": 9,
        "test": 0.4, "drift": 1.0, "recall": 0.5, "distance": 9.0, "rate": 0.1, "stacking": 0.2,
    }  # fmt: skip
    found = report.peft_result(row)
    assert list(found) == ["run_info", "train_info", "meta_info"]
    assert found["run_info"]["train_config"]["optimizer_kwargs"] == {"lr": 0.1}
    first, last = found["train_info"]["metrics"]
    assert (first["step"], first["valid loss"]) == (4, 0.5)
    assert (last["step"], last["test loss"], last["stacking"]) == (9, 0.4, 0.2)


def test_results_of_a_checkpoint_say_so() -> None:
    row = ROW | {"rate": 1e-4, "model": "sd15", "precision": "bf16", "device": "cuda", "batch": 2}
    config = report.peft_result(row)["run_info"]["train_config"]
    assert (config["model_id"], config["dtype"], config["batch_size"]) == ("sd15", "bfloat16", 2)
    assert report.peft_result(row)["meta_info"]["system_info"]["accelerator"] == "cuda"
