"""What a run remembers: its best step, its structure and images; and that nobody else trains in its
folder.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import Toy, same, toy_examples, toy_settings

import hypernetworks as hn
from hypernetworks.errors import FileWriteError, TrainingStateError
from hypernetworks.training import Caption, Example, Run, train
from hypernetworks.training.best import PATIENCE, Best
from hypernetworks.training.checkpoints import best_file, load_state
from hypernetworks.training.locking import LOCK, locked
from hypernetworks.training.processes import World
from hypernetworks.training.validation import ValidationLoss

TANH = hn.Structure((1, 2, 1), "tanh", activate_output=False)


def run_on(folder: Path, values: list[float], **changes: object) -> tuple[Run, list[str]]:
    """A run with given validation losses."""
    told: list[str] = []
    settings = toy_settings(**{"steps": len(values), "watch_every": 1, "save_every": 4, **changes})
    run = Toy().run(settings, folder, on_warning=told.append)
    run.measure = lambda: values[run.step - 1]  # type: ignore[method-assign]
    return run, told


def test_the_best_step_is_smoothed_over_two_measurements() -> None:
    best = Best()
    assert [best.add(i, v) for i, v in enumerate([1.0, 0.8, 0.3, 0.9, 0.5], 1)] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert (best.step, best.loss) == (3, pytest.approx(0.55))
    other = Best()
    other.restore(best.state())
    assert other.state() == best.state()


def test_the_best_network_is_kept_and_told(tmp_path: Path) -> None:
    values = [1.0, 0.9, 0.8, *[1.0 + i / 100 for i in range(12)]]
    run, told = run_on(tmp_path, values)
    weights: list[list[torch.Tensor]] = []
    train(
        run, on_step=lambda _: weights.append([p.detach().clone() for p in run._learned.parameters])
    )
    assert run.best.step == 3
    found = hn.read(best_file(tmp_path, "toy", ".safetensors"))
    assert found.provenance.step == 3
    assert same(list(found.parameters()), weights[2])
    (message,) = told
    assert "not fallen since step 3" in message


def test_a_run_until_its_best_stops_and_stays_stopped(tmp_path: Path) -> None:
    values = [1.0, 0.9, *[1.0] * 20]
    run, _ = run_on(tmp_path, values, until="best")
    train(run)
    assert run.step == 2 + PATIENCE
    again, _ = run_on(tmp_path, values, until="best")
    assert again.is_finished
    further, _ = run_on(tmp_path, values)
    assert not further.is_finished


def test_what_is_the_best_survives_an_interruption(tmp_path: Path) -> None:
    values = [1.0, 0.5, 0.6, 0.7, 0.8, 0.4, 0.3, 0.9]
    run, _ = run_on(tmp_path / "whole", values)
    train(run)
    for _ in range(20):
        part, _ = run_on(tmp_path / "parts", values)
        if part.is_finished:
            break
        train(part, should_stop=lambda: True)
    assert part.best.state() == run.best.state()
    one, other = (
        hn.read(best_file(tmp_path / f, "toy", ".safetensors")) for f in ("whole", "parts")
    )
    assert same(list(one.parameters()), list(other.parameters()))


def measuring(
    folder: Path, values: list[float], count: int, **changes: object
) -> tuple[Run, list[str]]:
    """A run with given validation losses on the first ``count`` images, or on none."""
    toy, told = Toy(), list[str]()
    validation = ValidationLoss(toy_examples(count), toy.contexts, 0) if count else None
    settings = toy_settings(**{"steps": len(values), "watch_every": 1, "save_every": 1, **changes})
    run = toy.run(settings, folder, validation=validation, on_warning=told.append)
    run.measure = lambda: values[run.step - 1]  # type: ignore[method-assign]
    return run, told


def test_losses_of_two_measures_are_not_compared(tmp_path: Path) -> None:
    low = [0.1] * 4
    train(measuring(tmp_path, low, 2)[0])
    best = best_file(tmp_path, "toy", ".safetensors")
    run, told = measuring(tmp_path, [*low, 0.9, 0.8], 3, until="best")
    assert told == [
        "the validation loss measures something else than in the earlier steps (other images, "
        "captions, masks, size, seed or model), so the best network is chosen anew from here on"
    ]
    # Until the first measurement there is no best step, and the file of the old one stays.
    assert (run.best.step, run.best.begun, hn.read(best).provenance.step) == (0, 4, 1)
    train(run)
    assert (run.best.step, run.best.loss) == (6, pytest.approx(0.85))
    assert hn.read(best).provenance.step == 6
    again, told = measuring(tmp_path, [*low, 0.9, 0.8, 0.7], 3)
    assert (again.best.step, again.best.begun, told) == (6, 4, [])


def test_a_best_step_by_another_measure_ends_no_run(tmp_path: Path) -> None:
    values = [0.1] * (2 + PATIENCE)
    train(measuring(tmp_path, values, 2, until="best")[0])
    assert measuring(tmp_path, [*values, 1.0], 2, until="best")[0].is_finished
    assert not measuring(tmp_path, [*values, 1.0], 3, until="best")[0].is_finished


def test_all_processes_begin_anew_where_the_first_one_measures_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others measure nothing, but must stop at the same step."""
    values = [0.1] * (2 + PATIENCE)
    train(measuring(tmp_path, values, 2, until="best")[0])
    monkeypatch.setattr(World, "any", lambda *_: True)
    assert not measuring(tmp_path, [*values, 1.0], 0, until="best")[0].is_finished


def test_a_best_step_stays_where_nothing_is_measured_for_a_while(tmp_path: Path) -> None:
    train(measuring(tmp_path, [0.1] * 2, 2)[0])
    train(measuring(tmp_path, [0.1] * 4, 0, watch_every=0)[0])
    run, told = measuring(tmp_path, [0.1] * 5, 2)
    assert (run.step, run.best.step, told) == (4, 1, [])
    assert measuring(tmp_path, [0.1] * 5, 3)[0].best.step == 0


def test_what_is_measured_goes_by_all_that_the_loss_depends_on() -> None:
    toy, (first, second) = Toy(), toy_examples(2)
    half = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])

    def measured(*examples: Example, seed: int = 0, model: object = "a") -> str:
        return ValidationLoss(examples, toy.contexts, seed, model).measured

    usual = measured(first, second)
    assert usual == measured(*toy_examples(2))
    assert usual == measured(replace(first, weights=(torch.full((1, 2, 2), 0.5),)), second)
    others = [
        measured(first),
        measured(second, first),
        measured(replace(first, key="another"), second),
        measured(replace(first, latents=(torch.zeros(4, 2, 3),)), second),
        measured(replace(first, caption=Caption(("other words",))), second),
        measured(replace(first, weights=(half,)), second),
        measured(replace(first, weights=(half.transpose(1, 2),)), second),
        measured(replace(first, frames=((8, 8, 0, 4),)), second),
        measured(first, second, seed=1),
        measured(first, second, model="b"),
    ]
    assert len({usual, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    "structure",
    [
        TANH,
        hn.Structure((1, 2, 1), "relu", activate_output=True),
        hn.Structure((1, 2, 1), "relu", activate_output=False, dropout=(0, 0.2, 0)),
    ],
)
def test_another_structure_of_the_same_size_is_refused(
    tmp_path: Path, structure: hn.Structure
) -> None:
    train(Toy().run(toy_settings(steps=2), tmp_path))
    with pytest.raises(TrainingStateError, match="a run of a network with"):
        Toy(structure).run(toy_settings(), tmp_path)


def test_other_images_than_before_are_told(tmp_path: Path) -> None:
    examples = [replace(e, key=e.name) for e in toy_examples(6)]
    train(Toy(examples=examples).run(toy_settings(steps=2), tmp_path))
    told: list[str] = []
    Toy(examples=examples).run(toy_settings(), tmp_path, on_warning=told.append)
    assert told == []
    changed = [
        replace(examples[0], key="another"),
        replace(examples[1], caption=Caption(("other words",))),
        replace(examples[2], latents=(torch.zeros(4, 2, 3),)),
        examples[3],
        replace(examples[4], name="new"),
    ]
    run = Toy(examples=changed).run(toy_settings(), tmp_path, on_warning=told.append)
    assert told == [
        "1 image (new) was added since the earlier steps",
        "2 images (4, 5) were removed since the earlier steps",
        "1 image (0) was replaced since the earlier steps",
        "1 image (1) was given other captions since the earlier steps",
        "1 image (2) was brought to another size since the earlier steps",
    ]
    assert {"0", "5", "another"} <= run._learned.seen


def test_a_run_saves_its_state_between_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypernetworks.training.saving.LONGEST_UNSAVED", 0.0)
    monkeypatch.setattr("hypernetworks.training.saving.MOST_SAVING", 1e9)
    run = Toy().run(toy_settings(save_every=0), tmp_path)
    for _ in range(3):
        run.advance()
    again = Toy().run(toy_settings(save_every=0), tmp_path)
    assert again.step == 3
    again.finish()
    assert (tmp_path / "toy-3.safetensors").exists()


def test_a_full_disk_says_how_much_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def full(*_: object) -> None:
        raise RuntimeError(
            "[enforce fail] PytorchStreamWriter failed writing file: file write failed"
        )

    run = Toy().run(toy_settings(save_every=1), tmp_path, on_warning=told.append)
    with monkeypatch.context() as patch:
        patch.setattr("torch.save", full)
        run.advance()
    assert "disk is full" in told[0]
    assert "MB. Training continues" in told[0]
    run.advance()
    assert "is saved" in told[1]


def test_states_of_older_versions_go_on(tmp_path: Path) -> None:
    train(Toy().run(toy_settings(steps=2), tmp_path))
    state = load_state(tmp_path)
    assert state is not None
    for key in ("best", "measured", "structure", "examples", "seen", "held_out"):
        state.pop(key)
    state["watch"] = {k: v for k, v in state["watch"].items() if "usual" not in k}
    torch.save(state, tmp_path / "state.pt")
    run = Toy().run(toy_settings(), tmp_path)
    train(run)
    assert run.step == 8


def test_a_best_step_of_an_older_version_stays(tmp_path: Path) -> None:
    """It doesn't say what was measured."""
    train(measuring(tmp_path, [0.1] * 2, 2)[0])
    state = load_state(tmp_path)
    assert state is not None
    del state["measured"]
    torch.save(state, tmp_path / "state.pt")
    run, told = measuring(tmp_path, [0.1] * 3, 3)
    assert (run.best.step, told) == (1, [])
    train(run)
    assert measuring(tmp_path, [0.1] * 4, 2)[0].best.step == 0


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains in the folder."""
    code = (
        "import sys, time; from pathlib import Path; from hypernetworks.training.locking import "
        "locked\n"
        f"with locked(Path({str(tmp_path / 'run')!r})): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        yield process
        process.kill()


def test_one_run_at_a_time_and_a_killed_one_locks_nothing(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    folder = tmp_path / "run"
    with (
        pytest.raises(TrainingStateError, match="being trained by another process"),
        locked(folder),
    ):
        pass
    holder.kill()
    holder.wait()
    assert (folder / LOCK).exists()
    with locked(folder):
        (folder / "state.pt").touch()
    assert [path.name for path in folder.iterdir()] == ["state.pt"]


def test_a_folder_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileWriteError), locked(tmp_path / "file" / "run"):
        pass
    with locked(tmp_path / "empty"):
        pass
    assert not (tmp_path / "empty").exists()
