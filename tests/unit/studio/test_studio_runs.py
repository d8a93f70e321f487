"""The list of runs: what each has learned, and what may be done with it by its name alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import hypernetworks as hn
from hypernetworks.studio.comparing.axes import CHECKPOINT
from hypernetworks.studio.tabs.axes import NONE, for_run
from hypernetworks.studio.train.form_values import FormValues
from hypernetworks.studio.train.tab import fields_of_run
from hypernetworks.studio.train.trainer import Trainer
from hypernetworks.training.folders import TrainingFolders
from hypernetworks.ui.training.form import NO_FOLDER
from hypernetworks.ui.training.runs import FORM, TRASH, Runs, remember, remembered
from hypernetworks.ui.training.values import NEW

LOG = "step,loss,smoothed,validation,rate,gradient_norm,seconds\n"
ROWS = "1,1,1,,1e-3,1,1\n2,0.9,0.9,0.5,1e-3,1,1\n3,0.8,0.8,0.7,1e-3,1,1\n"


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    folder = tmp_path / "training" / "runs"
    (folder / "azure" / "previews").mkdir(parents=True)
    (folder / "azure" / "log.csv").write_text(LOG + ROWS, encoding="utf-8")
    (folder / "azure" / "state.pt").write_bytes(b"state")
    (folder / "azure" / "previews" / "1-000002.png").write_bytes(b"preview")
    network = hn.Hypernetwork.create("azure", hn.Structure((1, 2, 1), "linear"), (8,))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    for step in (2, 3):
        hn.write(network, folder / "azure" / f"azure-{step}.safetensors")
    remember(FormValues(name="azure", key="example", steps=3.0, rate="0.05"), folder / "azure")
    (folder / "empty").mkdir()
    return Runs(folder)


def test_a_run_says_what_it_has_learned(runs: Runs) -> None:
    (run,) = runs.all()
    assert (run.name, run.step, run.best_step, run.best_loss) == ("azure", 3, 2, 0.5)
    assert run.saved == [2, 3]
    assert run.has_preview
    assert run.can_go_on
    assert Runs(runs.folder / "nowhere").all() == []


@pytest.mark.parametrize(
    ("settings", "best"),
    [
        ('{"measured_since": 2}', 3),
        ('{"measured_since": 3}', None),
        ('{"measured_since": "2"}', 2),
        ("[1]", 2),
        ("{", 2),
    ],
)
def test_the_best_step_is_one_that_is_measured_as_now(
    runs: Runs, settings: str, best: int | None
) -> None:
    (runs.path("azure") / "settings.json").write_text(settings)
    (run,) = runs.all()
    assert run.best_step == best


@pytest.mark.skipif(sys.platform != "linux", reason="names are text on this system")
def test_a_run_whose_name_is_no_text_is_not_listed(runs: Runs) -> None:
    broken = runs.folder / os.fsdecode(b"caf\xe9")
    broken.mkdir()
    (broken / "log.csv").write_text(LOG + ROWS, encoding="utf-8")
    assert [run.name for run in runs.all()] == ["azure"]


def test_the_fields_come_back_and_foreign_ones_do_not(runs: Runs) -> None:
    values = remembered(runs.path("azure"))
    assert values == FormValues(name="azure", key="example", steps=3.0, rate="0.05")
    (runs.path("azure") / FORM).write_text('{"rate": "1e-4", "replace": [1], "other": 5}')
    assert remembered(runs.path("azure")) == FormValues(rate="1e-4")
    for text in ("", "{", "[" * 99_999):
        (runs.path("azure") / FORM).write_text(text)
        with pytest.raises(hn.HypernetworkError, match="not known"):
            remembered(runs.path("azure"))


def test_a_run_goes_on_with_its_own_fields(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = SimpleNamespace(painter=SimpleNamespace(library=None))
    trainer = Trainer(queue, TrainingFolders(runs.folder.parent), None)  # type: ignore[arg-type]
    begun: list[FormValues] = []
    monkeypatch.setattr(trainer, "start", begun.append)
    trainer.go_on("azure", 50)
    (values,) = begun
    assert (values.name, values.steps, values.rate, values.key) == ("azure", 53, "0.05", "example")
    assert not values.start_over


def test_its_fields_can_be_changed_and_its_steps_compared(runs: Runs, tmp_path: Path) -> None:
    queue = SimpleNamespace(painter=SimpleNamespace(library=None), library=hn.Library([tmp_path]))
    trainer = Trainer(queue, TrainingFolders(runs.folder.parent), None)  # type: ignore[arg-type]
    given = FormValues(key="gone", path="/images", begin_with="gone", start_over=True, rate="0.05")
    remember(given, runs.path("azure"))
    form: Any = SimpleNamespace(fields=vars(given), folders=lambda: [NO_FOLDER, ("cats", "1")])

    trainer.takes_paths = False  # as with --listen: the path of another session is not told
    found = fields_of_run(trainer, form, "azure")
    assert found.keys() == vars(given).keys()
    assert (found["name"], found["rate"], found["start_over"]) == ("azure", "0.05", False)
    assert (found["key"]["value"], found["begin_with"]["value"], found["path"]) == ("", NEW, "")
    trainer.takes_paths = True
    assert fields_of_run(trainer, form, "azure")["path"] == "/images"
    with pytest.raises(hn.HypernetworkError, match="no such run"):
        fields_of_run(trainer, form, "../azure")

    kind, typed, *others = for_run("azure")
    assert (kind, typed["value"], typed["visible"]) == (CHECKPOINT, "azure", True)
    assert others[0] == NONE


def test_a_step_goes_to_the_library_once(runs: Runs, tmp_path: Path) -> None:
    library = hn.Library([tmp_path / "library"])
    assert runs.keep("azure", 2, library, tmp_path / "library") == "azure-2"
    assert (tmp_path / "library" / "azure-2.png").read_bytes() == b"preview"
    with pytest.raises(hn.HypernetworkError, match="already"):
        runs.keep("azure", 2, library, tmp_path / "library")
    with pytest.raises(hn.HypernetworkError, match="no network of step 9"):
        runs.keep("azure", 9, library, tmp_path / "library")
    with pytest.raises(hn.HypernetworkError, match="no folder"):
        runs.keep("azure", 3, library, None)


def test_a_run_in_the_trash_can_be_taken_back(runs: Runs) -> None:
    runs.discard("azure")
    assert runs.all() == []
    assert (runs.folder.parent / TRASH / "azure" / "log.csv").is_file()


def test_no_other_folder_can_be_meant(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "log.csv").write_text(LOG)
    names = ["../../secret", "..", ".", "", "azure/previews", str(tmp_path / "secret"), "empty"]
    if os.name != "nt":
        (runs.folder / "link").symlink_to(tmp_path / "secret")
        names.append("link")
    for name in names:
        with pytest.raises(hn.HypernetworkError):
            runs.path(name)
        assert runs.preview(name) is None
        with pytest.raises(hn.HypernetworkError):
            runs.discard(name)
