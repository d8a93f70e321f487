"""States of training runs, captions and layer structures from strangers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hardening.pickling import dictionary, number, text, zipped

from hypernetworks.engine.structure import MOST_LAYERS, Structure
from hypernetworks.errors import StructureError, TrainingDataError, TrainingStateError
from hypernetworks.files import read
from hypernetworks.training.captions import read_template, words_of
from hypernetworks.training.checkpoints import FORMAT, STATE, load_state, save_state

WHOLE: dict[str, Any] = {
    "step": 5,
    "base": 0,
    "parameters": [torch.arange(6.0).view(2, 3), torch.ones(2, dtype=torch.bfloat16)],
    "average": [],
    "optimiser_name": "AdamW",
    "optimiser": {
        "state": {0: {"step": torch.tensor(5.0), "exp_avg": torch.ones(2, 3)}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "foreach": None, "params": [0, 1]}],
    },
    "scaler": {},
    "watch": {"total": 0.5, "seen": 5},
    "seed": 1,
}


def written(folder: Path, state: dict[str, Any]) -> None:
    """A state as a stranger writes it, past what the trainer makes of its own."""
    torch.save({"format": FORMAT, **state}, folder / STATE)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and all(map(same, one, other)) and len(one) == len(other)
    return bool(one == other)


def test_a_state_is_read_as_it_was_written_and_without_torch_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path, WHOLE)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("torch.load was called")

    monkeypatch.setattr(torch, "load", refuse)
    found = load_state(tmp_path)
    assert found is not None
    assert same({k: v for k, v in found.items() if k != "format"}, WHOLE)


@pytest.mark.parametrize("key", [key for key in WHOLE if key != "seed"])
def test_a_state_with_something_else_in_it_is_damaged(key: str, tmp_path: Path) -> None:
    shared: list[object] = ["a" * 8]
    for _ in range(40):
        shared = [shared, shared]
    for value in (shared, None, "a\nb", [[]], 1 << 70):
        if key == "average" and value is None:
            continue
        written(tmp_path, WHOLE | {key: value})
        began = time.process_time()
        with pytest.raises(TrainingStateError, match="is damaged"):
            load_state(tmp_path)
        assert time.process_time() - began < 1


def test_a_state_that_runs_something_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    call = b"cos\nmkdir\n" + text(str(marker)) + b"\x85R"
    zipped(tmp_path / STATE, dictionary((text("format"), number(1)), (text("step"), call)))
    with pytest.raises(TrainingStateError, match="is damaged"):
        load_state(tmp_path)
    assert not marker.exists()


def test_a_state_that_is_too_deep(tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(60):
        deep = [deep]
    written(tmp_path, WHOLE | {"watch": deep})
    with pytest.raises(TrainingStateError, match="is damaged"):
        load_state(tmp_path)


@pytest.mark.parametrize("count", [MOST_LAYERS + 1, 200_000])
def test_a_layer_structure_without_end_is_refused_in_few_words(count: int) -> None:
    with pytest.raises(StructureError, match=f"has {count} entries: at most") as caught:
        Structure((1.0,) * count, dropout=(0.0,) * count)
    assert len(str(caught.value)) < 200
    assert len(Structure((1.0,) * MOST_LAYERS, dropout=(0.0,) * MOST_LAYERS).widths(8)) == 100


def test_one_network_under_many_widths(tmp_path: Path) -> None:
    from hardening.pickling import MATRIX
    from hardening.sharing import get, put

    state = dictionary(
        *((text(f"linear.{i}.weight"), MATRIX if not i else b"N") for i in range(8000))
    )
    pair = state + put(1) + get(1) + b"\x86" + put(2) + b"0"
    widths = b"}(" + b"".join(number(i + 1) + get(2) for i in range(20_000)) + b"u"
    path = zipped(tmp_path / "a.pt", b"N0" + pair + widths)
    began = time.process_time()
    with pytest.raises(StructureError, match="20000 widths: at most"):
        read(path)
    assert time.process_time() - began < 2


def test_captions_and_templates_have_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("b, " * 30_000)
    with pytest.raises(TrainingDataError, match="too long for a caption"):
        words_of(tmp_path / "a.png")
    (tmp_path / "template.txt").write_text("[filewords]" * 100_000)
    with pytest.raises(TrainingDataError, match="line of more than"):
        read_template(str(tmp_path / "template.txt"))
