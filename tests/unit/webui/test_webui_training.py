"""The tab "Train hypernetwork" of the webuis: its fields as a command line, its queue of
processes, the Python that it uses, and what it moves off the GPU."""

from __future__ import annotations

import argparse
import gc
import importlib
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient
from unit.library.test_library import network as a_network

import hypernetworks as hn
from hypernetworks.cli.train import _job
from hypernetworks.cli.train_options import add_options
from hypernetworks.errors import HypernetworkError, TrainingDataError, TrainingSettingsError
from hypernetworks.hosts.webui import commands, folders, registration, settings
from hypernetworks.hosts.webui.training import arguments, memory, pythons, routes, setting_up, tab
from hypernetworks.hosts.webui.training.device import named_device
from hypernetworks.hosts.webui.training.running import Order, Queue
from hypernetworks.training import PRESETS
from hypernetworks.training.picture_settings import PictureSettings
from hypernetworks.ui.training.values import FormValues, creation_of

two_hosts = pytest.mark.parametrize("fake_webui", ["a1111", "sdnext"], indirect=True)
CHECKPOINT = Path("some model.safetensors")


def parsed(values: FormValues, network: Path | None = None) -> argparse.Namespace:
    """The fields as the trainer's own parser reads them."""
    return read(arguments.arguments_of(values, Path("images"), CHECKPOINT, Path("runs"), network))


def read(command: Sequence[str]) -> argparse.Namespace:
    """What follows ``python -m hypernetworks``, as the trainer's own parser reads it."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert command[0] == "train"
    return parser.parse_args(command[1:])


# ------------------------------------------------------------------ fields


def test_every_field_reaches_the_trainer() -> None:
    """A field of the form that no option follows would be shown and have no effect."""
    usual = FormValues(name="ink")
    changed: dict[str, Any] = {
        "name": "other", "purpose": "small", "start_over": True, "steps": 7.0, "rate": "2e-5",
        "previews": "a cat\n\n b dog", "layers": "1, 3, 1", "activation": "swish",
        "initialisation": "XavierNormal", "layer_norm": True, "dropout": 0.25,
        "self_attention": False, "zero_last": False, "batch": 3.0, "accumulation": 2.0,
        "shape": "linear", "warm_up": 4.0, "restarts": 2.0, "optimiser": "SGD",
        "weight_decay": 0.5, "precision": "bf16", "memory": "fp8", "checkpointing": "on", "clip": 0.0, "min_snr": 5.0,
        "noise_offset": 0.1, "ema": 0.9, "caption_dropout": 0.3, "seed": 5.0, "width": 64.0,
        "height": 96.0, "fit": "buckets", "crops": 2.0, "flip": True, "alpha": True,
        "template": "-a [name]", "shuffle": True, "tag_dropout": 0.2, "validation": 0.0,
        "save_every": 9.0, "keep": 1.0, "watch_every": 0.0, "preview_every": 8.0,
        "file_suffix": ".pt",
    }  # fmt: skip
    elsewhere = {"key", "path", "replace", "begin_with"}  # the folder, the library, --network
    assert {field.name for field in fields(FormValues)} == {*changed, *elsewhere}
    for name, value in changed.items():
        assert parsed(replace(usual, **{name: value})) != parsed(usual), name  # type: ignore[arg-type]

    whole = parsed(FormValues(**changed))
    assert (whole.name, whole.checkpoint, whole.steps) == ("other", CHECKPOINT, 7)
    assert whole.previews == ["a cat", "b dog"]
    assert (whole.size, whole.layers, whole.dropout) == ((64, 96), (1, 3, 1), (0, 0.25, 0))
    assert whole.template == "-a [name]"


@pytest.mark.parametrize("purpose", PRESETS)
def test_a_purpose_fills_the_fields_and_means_the_preset(purpose: str, fake_webui: Any) -> None:
    values = FormValues(name="ink", **{"purpose": purpose, **tab.TRAININGS.preset(purpose)})
    options, preset = parsed(values), PRESETS[purpose]
    assert options.preset == purpose
    assert options.layers == preset.layer_structure
    assert options.self_attention is preset.self_attention
    assert (options.steps, options.batch) == (preset.settings.steps, preset.settings.batch)


@pytest.mark.parametrize("purpose", PRESETS)
@pytest.mark.parametrize("is_miniature", [False, True])
def test_the_network_is_that_of_the_fields_whatever_the_purpose(
    purpose: str, is_miniature: bool
) -> None:
    """A field that is off must not become what the preset has."""
    painter: Any = SimpleNamespace(default_size=512, size_step=8, is_miniature=is_miniature)
    for own in (
        {"dropout": 0.0, "self_attention": True, "seed": 3.0},
        {"dropout": 0.2, "self_attention": False, "layers": "1, 2, 2, 1", "zero_last": False},
        {"dropout": None, "layer_norm": True, "activation": "swish", "layers": "1, 1"},
    ):
        values = FormValues(name="ink", purpose=purpose, **own)  # type: ignore[arg-type]
        assert _job(parsed(values), painter).creation == creation_of(values)


def test_no_number_is_empty_and_every_first_value_is_usable(fake_webui: Any) -> None:
    """gradio 3 sends 0 for an empty field, and ``--crops is 0`` stopped every training there."""
    first = FormValues(name="ink", **tab.TRAININGS.preset("style"))
    numbers = [name for name in arguments._NUMBERS if getattr(first, name) is None]
    assert numbers == []
    options = parsed(first)
    known = {field.name: getattr(options, field.name, None) for field in fields(PictureSettings)}
    PictureSettings(**{name: value for name, value in known.items() if value is not None})
    assert options.size is None, "the model's own"


def test_a_network_to_start_from_keeps_its_own_structure() -> None:
    """``train`` refuses options of a new network beside ``--network``."""
    options = parsed(FormValues(name="ink", begin_with="old", layers="1, 9, 1"), Path("old.pt"))
    assert (options.network, options.layers) == (Path("old.pt"), None)


@pytest.mark.parametrize(
    "wrong", [{"name": "../x"}, {"name": ""}, {"template": "lines.txt"}, {"layers": "a"}]
)
def test_what_no_training_could_begin_with_is_refused_at_once(wrong: dict[str, str]) -> None:
    with pytest.raises(HypernetworkError):
        arguments.check(replace(FormValues(name="ink"), **wrong))  # type: ignore[arg-type]


# ------------------------------------------------------------------ the queue

TRAINER = """
import os, sys, threading, time
from pathlib import Path
run, kind, source = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
stopped = []
threading.Thread(target=lambda: stopped.append(os.read(0, 1)), daemon=True).start()
print("encoding images [##] 1/2", flush=True)
if kind == "fails":
    sys.exit(print("hypernetworks: no room left", flush=True) or 2)
(run / "previews").mkdir(exist_ok=True)
with (run / "log.csv").open("w") as log:
    print("step,loss,smoothed,validation,rate,gradient_norm,seconds", file=log)
    for step in range(1, 4):
        print(f"{step},0.5,0.4,,0.001,1,0.5", file=log, flush=True)
    (run / "previews" / "1-3.png").write_bytes((source / "some.png").read_bytes())
    while kind == "waits" and not stopped:
        time.sleep(0.02)
file = run / f"{run.name}-3.pt"
file.write_bytes((source / "some.pt").read_bytes())
print(file, flush=True)
sys.exit(130 if kind == "waits" else 0)
"""
"""Stands in for ``python -m hypernetworks train``: the same files, lines and exit codes."""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A queue whose trainings are done by :data:`TRAINER`, and a library to put networks into."""
    monkeypatch.setattr("hypernetworks.hosts.webui.training.running.POLL_SECONDS", 0.02)
    source, library = tmp_path / "source", tmp_path / "library"
    for folder in (source, library):
        folder.mkdir()
    made = hn.Hypernetwork.create("some", hn.Structure((1, 2, 1), "linear"), (8,))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    hn.write(made, source / "some.pt")
    Image.new("RGB", (8, 8), "red").save(source / "some.png")

    moves: list[str] = []
    found = hn.Library([library])
    queue = Queue(
        lambda: (found, library),
        before=lambda: moves.append("away"),
        after=lambda: moves.append("back"),
    )

    def order(name: str, kind: str = "ends", **changes: Any) -> Order:
        values = FormValues(name=name, key="0:some", steps=3, file_suffix=".pt", **changes)
        runs = tmp_path / "runs"
        command = (sys.executable, "-c", TRAINER, str(runs / name), kind, str(source))
        return Order(values, command, runs, CHECKPOINT)

    yield SimpleNamespace(queue=queue, order=order, library=library, moves=moves)
    queue.close()


def until(happened: Callable[[], object]) -> None:
    """Wait for a state of another process."""
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def test_a_network_gets_from_a_process_into_the_library(queue: Any) -> None:
    assert queue.queue.add(queue.order("ink")) == 0
    queue.queue.wait(60)
    state = queue.queue.state
    assert (state.kept_as, state.is_running, state.is_wrong) == ("ink", False, False)
    assert [row.step for row in state.rows] == [1, 2, 3]
    assert state.rows[-1].steps_per_second == 2
    assert [step for step, _ in state.previews] == [3]
    assert (queue.library / "ink.pt").is_file()
    assert (queue.library / "ink.png").is_file(), "its preview is the card's"
    assert queue.moves == ["away", "back"]


def test_one_that_runs_is_interrupted_and_the_next_one_follows(queue: Any) -> None:
    queue.queue.add(queue.order("first", "waits"))
    until(lambda: queue.queue.state.note in ("Encoding images 1/2", "Step 3 of 3"))
    assert queue.queue.add(queue.order("second")) == 1
    queue.queue.add(queue.order("third"))
    with pytest.raises(HypernetworkError, match="waits for it"):
        queue.queue.add(queue.order("second"))
    until(lambda: queue.queue.state.name == "first" and len(queue.queue.state.rows) == 3)
    assert queue.queue.waiting() == ["second", "third"]
    queue.queue.remove("third")

    assert queue.queue.interrupt()
    first = queue.queue.state
    queue.queue.wait(60)
    assert first.messages == ["interrupted after 3 steps: Continue, in the list of runs, goes on"]
    assert first.kept_as == "first", "what it has learned so far can be tried"
    assert (queue.queue.state.name, queue.queue.state.kept_as) == ("second", "second")
    assert not queue.queue.interrupt()


def test_a_failure_costs_a_message(queue: Any) -> None:
    queue.queue.add(queue.order("ink", "fails"))
    queue.queue.wait(60)
    state = queue.queue.state
    assert (state.messages, state.is_wrong, state.is_running) == (["no room left"], True, False)

    missing = replace(queue.order("other"), command=("/no/such/python",))
    queue.queue.add(missing)
    queue.queue.wait(60)
    assert "the training failed" in queue.queue.state.messages[0]


def test_a_network_of_the_user_is_never_replaced_unasked(queue: Any) -> None:
    (queue.library / "ink.pt").write_bytes(b"mine")
    with pytest.raises(HypernetworkError, match="in the library already"):
        queue.queue.add(queue.order("ink"))
    queue.queue.add(queue.order("ink", replace=True))
    queue.queue.wait(60)
    assert (queue.library / "ink.pt").read_bytes() != b"mine"


# ------------------------------------------------------------------ the Python that trains


def test_another_process_is_asked_which_python_can_train(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / "python"
    own.touch()
    able, asked = {str(own)}, list[str]()

    def run(command: list[str], **_: Any) -> Any:
        asked.append(command[0])
        return SimpleNamespace(stdout="ready\n" if command[0] in able else "")

    monkeypatch.setattr(pythons, "own_environment", lambda: own)
    monkeypatch.setattr(subprocess, "run", run)
    pythons.forget()
    assert pythons.known() is None
    pythons._found[Path(sys.executable)] = False
    assert pythons.known() is None, "the extension's own is still to be asked"
    pythons.forget()
    assert pythons.able() == own, "the webui's own has no diffusers here"
    assert pythons.able() == own
    assert asked == [sys.executable, str(own)], "each is asked once"
    assert pythons.known() is True

    pythons.forget()
    able.add(sys.executable)
    assert pythons.able() == Path(sys.executable), "the webui's own comes first"
    pythons.forget()
    able.clear()
    assert (pythons.able(), pythons.known()) == (None, False)
    pythons.forget()


def test_the_probe_is_python_and_names_pyprojects_versions() -> None:
    compile(pythons._PROBE, "probe", "exec")
    text = (commands.ROOT / "pyproject.toml").read_text("utf-8")
    for name, lowest in pythons._NEEDED.items():
        assert f'"{name}>={lowest[0]}.{lowest[1]}' in text or name == "torch"


def test_the_set_up_installs_into_the_extension_alone(
    fake_webui: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, *command = setting_up.command()
    assert python == sys.executable
    assert command == [str(commands.ROOT / "install.py"), "studio", "--help"]

    made, begun = setting_up.SetUp(), list[Any]()
    monkeypatch.setattr(setting_up, "start", lambda command, _log: begun.append(command))
    monkeypatch.setattr(fake_webui.shared.cmd_opts, "listen", True, raising=False)
    with pytest.raises(HypernetworkError, match="other machines"):
        made.begin()
    assert begun == []


# ------------------------------------------------------------------ the webui's device and model


@pytest.mark.parametrize(
    ("device", "options", "given"),
    [
        ("cpu", {}, None),  # no card that the webui's torch can use
        ("cpu", {"use_cpu": ["all"]}, "cpu"),
        ("cpu", {"use_cpu": ["sd", "gfpgan"]}, "cpu"),
        ("cuda", {"use_cpu": ["gfpgan"]}, None),
        ("cuda", {"use_cpu": ["all"]}, None),  # SD.Next knows the option, and ignores it
        ("cuda:1", {"device_id": "1"}, "cuda:1"),
        ("xpu:2", {"device_id": "2"}, "xpu:2"),
        ("privateuseone:1", {"device_id": "1"}, "directml:1"),
        ("cuda:0", {}, None),  # --gpu-device-id: the trainer inherits CUDA_VISIBLE_DEVICES
        ("meta:1", {}, None),  # stands for Huawei's npu, which the trainer doesn't know
    ],
)
def test_a_training_takes_the_device_that_the_webui_was_told_to(
    trainings: Any,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    options: dict[str, Any],
    given: str | None,
) -> None:
    webui = trainings.webui
    monkeypatch.setattr(webui.module("devices"), "device", torch.device(device))
    for name, value in options.items():
        monkeypatch.setattr(webui.shared.cmd_opts, name, value, raising=False)
    trainings.made.begin(FormValues(name="ink", path=str(trainings.images)), [])
    assert read(trainings.orders[-1].command[3:]).device == given


@pytest.mark.parametrize(
    ("place", "option"),
    [
        ("backend.args", "always_cpu"),  # Forge
        ("backend.args", "cpu"),  # Neo
        ("ldm_patched.modules.args_parser", "always_cpu"),  # reForge, Classic
    ],
)
def test_options_of_forges_kind_name_the_cpu(
    fake_webui: Any, monkeypatch: pytest.MonkeyPatch, place: str, option: str
) -> None:
    assert fake_webui.module("devices").device.type == "cpu"
    args = SimpleNamespace(**{option: False})
    module(monkeypatch, place, args=args)
    assert named_device() is None
    vars(args)[option] = True
    assert named_device() == "cpu"


def module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> ModuleType:
    """A module of a webui's, where none is."""
    for part in [name.rsplit(".", n)[0] for n in range(name.count("."), -1, -1)]:
        if part not in sys.modules:
            monkeypatch.setitem(sys.modules, part, ModuleType(part))
    vars(sys.modules[name]).update(content)
    return sys.modules[name]


def a_model(unet: torch.nn.Module | None = None) -> Any:
    """As much of a model as is asked for."""
    return SimpleNamespace(unet=unet or torch.nn.Linear(1, 1))


@pytest.fixture
def moving(fake_webui: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A webui with a loaded model, the modules that move it, and what is off the GPU in it."""
    assert fake_webui.shared, "modules is the fake's from here on"
    models = module(monkeypatch, "modules.sd_models")
    module(monkeypatch, "modules.devices", cpu="cpu", device="gpu", torch_gc=lambda: None)
    for name in ("sd_models", "devices"):
        monkeypatch.setattr(
            importlib.import_module("modules"), name, sys.modules[f"modules.{name}"], raising=False
        )
    monkeypatch.setattr(fake_webui.shared, "sd_model", a_model())
    monkeypatch.setattr(memory, "AWAY", away := memory.Away())
    return SimpleNamespace(models=models, away=away, shared=fake_webui.shared)


def test_each_kind_of_webui_is_asked_in_its_own_way(
    moving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, away, said = moving.models, moving.away, list[str]()

    def round_trip() -> list[str]:
        said.clear()
        away.move_away()
        away.move_away()  # what is away stays away
        assert away
        registration.before_image()
        registration.before_image()
        assert not away
        return list(said)

    models.send_model_to_cpu = lambda _: said.append("cpu")
    models.send_model_to_device = lambda _: said.append("gpu")
    assert round_trip() == ["cpu", "gpu"], "AUTOMATIC1111"

    models.move_model = lambda _, device: said.append(device)
    assert round_trip() == ["cpu", "gpu"], "SD.Next"

    forge = {
        "unload_all_models": lambda: said.append("unloaded"),
        "soft_empty_cache": lambda: said.append("emptied"),
    }
    module(monkeypatch, "ldm_patched.modules.model_management", **forge)
    assert round_trip() == ["unloaded", "emptied"], "reForge and Classic load it again themselves"


def test_a_model_that_was_exchanged_meanwhile_stays_where_it_is(moving: Any) -> None:
    """The user selects another checkpoint during a training: AUTOMATIC1111 keeps the first one in
    the CPU's memory, or leaves it without weights.
    """
    moves: list[tuple[str, object]] = []
    moving.models.send_model_to_cpu = lambda model: moves.append(("cpu", model))
    moving.models.send_model_to_device = lambda model: moves.append(("gpu", model))
    old, new = moving.shared.sd_model, a_model()
    moving.away.move_away()
    moving.shared.sd_model = new
    moving.away.bring_back()
    assert moves == [("cpu", old)]
    assert not moving.away

    moving.away.move_away()
    moving.shared.sd_model = old
    moving.away.move_away()  # the next training, before any image
    assert moves[1:] == [("cpu", new), ("cpu", old)], "what is on the GPU by then makes room, too"
    moves.clear()
    forgotten = weakref.ref(old.unet)
    moving.shared.sd_model = new
    del old
    gc.collect()
    assert forgotten() is None, "the webui can free it"
    moving.away.bring_back()
    assert moves == []


def test_another_pipeline_around_the_same_unet_comes_back(moving: Any) -> None:
    """SD.Next makes one when the user changes from txt2img to img2img."""
    moves: list[tuple[str, object]] = []
    moving.models.move_model = lambda model, device: moves.append((device, model))
    moving.away.move_away()
    other = moving.shared.sd_model = a_model(moving.shared.sd_model.unet)
    moving.away.bring_back()
    assert moves[1:] == [("gpu", other)]


def test_a_webui_that_cannot_move_its_model_still_trains(
    fake_webui: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = memory.Away()
    away.move_away()
    assert not away, "no model is loaded"
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(memory, "live_unet", lambda: 1 / 0)
    away.move_away()
    assert "could not be moved off the GPU" in capsys.readouterr().err


# ------------------------------------------------------------------ the tab and its routes


@pytest.fixture
def trainings(fake_webui: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The tab of a webui with a checkpoint, whose queue only notes what it gets."""
    made, orders = tab.WebuiTrainings(), list[Order]()
    for place in (tab, routes):
        monkeypatch.setattr(place, "TRAININGS", made)
    monkeypatch.setattr(made.queue, "add", lambda order: (orders.append(order), 0)[1])
    monkeypatch.setattr(tab, "selected_checkpoint", lambda: CHECKPOINT)
    monkeypatch.setattr(pythons, "able", lambda: Path("python"))
    images = tmp_path / "my images"
    images.mkdir()
    Image.new("RGB", (8, 8), "red").save(images / "a cat.png")
    return SimpleNamespace(made=made, orders=orders, images=images, webui=fake_webui)


def test_images_are_a_path_or_sent_or_in_the_list(trainings: Any) -> None:
    values, made = FormValues(name="ink"), trainings.made
    said = made.begin(replace(values, path=f' "{trainings.images}" '), [])
    assert said == 'Training "ink" on some model.safetensors.'
    assert str(trainings.images) in trainings.orders[-1].command

    made.begin(values, [str(trainings.images / "a cat.png")])
    kept = trainings.webui.root / "hypernetwork_training" / "pictures" / "ink"
    assert str(kept) in trainings.orders[-1].command
    ((_, key),) = made.source.folders()
    made.begin(replace(values, key=key), [])
    assert str(kept) in trainings.orders[-1].command

    both = replace(values, key=key, path=str(trainings.images))
    for wrong in (values, both):
        with pytest.raises(TrainingDataError, match="one of the three"):
            made.begin(wrong, [])
    with pytest.raises(TrainingDataError, match="no such folder"):
        made.begin(replace(values, path=str(trainings.images / "gone")), [])


@two_hosts
def test_paths_mean_the_same_to_a_trainer_that_runs_elsewhere(
    trainings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in the extension's folder. SD.Next names its own folders, and the checkpoint, from
    where it was started, and anyone may type such a path.
    """
    webui, made = trainings.webui, trainings.made
    assert webui.shared, "modules is the fake's from here on"
    models = module(monkeypatch, "modules.sd_models")
    vars(models)["select_checkpoint"] = lambda: SimpleNamespace(filename="models/some.safetensors")
    monkeypatch.setattr(tab, "selected_checkpoint", commands.selected_checkpoint)
    a_network(webui.folder / "old.pt")
    folders.refresh()
    images = webui.root / "datasets" / "cat"
    images.mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(images / "a cat.png")

    values = FormValues(name="ink", begin_with="old")
    made.begin(replace(values, path="datasets/cat"), [])
    made.begin(values, [str(images / "a cat.png")])
    data = webui.root / "hypernetwork_training"
    for order, pictures in zip(trainings.orders, (images, data / "pictures" / "ink"), strict=True):
        options = read(order.command[3:])
        assert options.pictures == [pictures]
        assert (options.runs, order.folder) == (data / "runs", data / "runs" / "ink")
        assert options.network == webui.folder / "old.pt"
        assert options.checkpoint == webui.root / "models" / "some.safetensors"
        assert order.checkpoint == options.checkpoint, "which its run remembers"
    assert trainings.orders[0].values.key == f"path:{images}", "and that"


def test_locked_folders_stay_locked(trainings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--hide-ui-dir-config``: a page may name no path, in no field."""
    monkeypatch.setattr(trainings.webui.shared.cmd_opts, "hide_ui_dir_config", True, raising=False)
    assert trainings.made.folders_are_locked
    for values in (
        FormValues(name="ink", path=str(trainings.images)),
        FormValues(name="ink", key=f"path:{trainings.images}"),
        FormValues(name="ink", key="1:../.."),
    ):
        with pytest.raises(TrainingDataError):
            trainings.made.begin(values, [])
    assert trainings.orders == []
    assert settings.is_remote()


def test_without_a_python_the_set_up_is_named(
    trainings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pythons, "able", lambda: None)
    with pytest.raises(HypernetworkError, match="press Set up"):
        trainings.made.begin(FormValues(name="ink", path=str(trainings.images)), [])
    with pytest.raises(TrainingSettingsError):  # told first: it can be put right at once
        trainings.made.begin(FormValues(name="/", path=str(trainings.images)), [])


def test_the_page_follows_and_steers(trainings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi import FastAPI

    from hypernetworks.hosts.webui import access, api

    app = FastAPI()
    api.register(app)
    api.register(app)
    client, start = TestClient(app), f"{access.PREFIX}/training"
    monkeypatch.setattr(pythons, "known", lambda: True)
    first = client.get(start).json()
    assert first["parts"]["progress"].count("selected checkpoint") == 1
    assert "parts" not in client.get(start, params={"seen": first["version"]}).json()
    assert (first["runs"], first["waiting"], first["setup"]["able"]) == ([], [], True)

    assert client.post(f"{start}/interrupt").status_code == 403, "a form of another site"
    header = {access.HEADER: "1"}
    answer = client.post(f"{start}/interrupt", headers=header)
    assert answer.json() == {"interrupted": False}
    for action in ("continue", "keep", "discard"):
        refused = client.post(f"{start}/{action}?name=..%2Fx&number=1", headers=header)
        assert (refused.status_code, "no such run" in refused.json()["error"]) == (422, True)
    assert client.get(f"{start}/preview?name=x").status_code == 404


def a_run(folder: Path) -> Path:
    """One of five steps."""
    folder.mkdir(parents=True)
    (folder / "log.csv").write_text(
        "step,loss,smoothed,validation,rate,gradient_norm,seconds\n5,1,1,,1,1,1\n"
    )
    return folder


def test_a_run_that_waits_leaves_the_queue_for_the_trash(
    queue: Any, fake_webui: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be made anew and trained from nothing."""
    made = tab.WebuiTrainings()
    made._queue = queue.queue
    monkeypatch.setattr(routes, "TRAININGS", made)

    def discard(name: str) -> str:
        request: Any = SimpleNamespace(query_params={"name": name})
        return str(routes.discard(request, b"")["said"])

    queue.queue.add(queue.order("first", "waits"))
    until(lambda: len(queue.queue.state.rows) == 3)
    for name in ("first", "second", "third"):
        a_run(made.folders.runs / name)
    queue.queue.add(queue.order("second"))
    with pytest.raises(HypernetworkError, match="being trained: interrupt"):
        discard("first")
    with pytest.raises(HypernetworkError, match="no such run"):
        discard("../second")
    assert queue.queue.waiting() == ["second"]
    assert discard("third") == 'third is in the folder "trash" beside the runs.'
    assert discard("second").endswith("beside the runs, and no longer waits to be trained.")
    assert queue.queue.waiting() == []
    assert not (made.folders.runs / "second").exists()


def test_a_run_goes_on_with_its_own_checkpoint(trainings: Any, tmp_path: Path) -> None:
    made = trainings.made
    made.begin(FormValues(name="ink", steps=3, start_over=True, path=str(trainings.images)), [])
    run = a_run(made.folders.runs / "ink")
    from hypernetworks.ui.training.runs import remember

    remember(trainings.orders[-1].values, run)
    other = tmp_path / "other.safetensors"
    other.touch()
    (run / "checkpoint.txt").write_text(str(other))
    made.go_on("ink", 10)
    order = trainings.orders[-1]
    assert (order.checkpoint, order.values.steps, order.restart) == (other, 15, False)
    assert str(trainings.images) in order.command
    other.unlink()
    with pytest.raises(HypernetworkError, match="is gone"):
        made.go_on("ink", 10)


@two_hosts
def test_the_tab_is_the_webuis(fake_webui: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """That diffusers stays out, the walls between the rooms see to (``test_directions.py``)."""
    registration.register()
    (added,) = fake_webui.module("script_callbacks").callback_map["ui_tabs"]
    ((tab, title, key),) = added()
    assert (title, key) == ("Train hypernetwork", "hypernetworks_train")
    assert tab.children == []
    with gr.Blocks(analytics_enabled=False) as page:
        tab.render()
    assert tab.children == page.children, "where the webui looks for values that its user changed"
    ids = [getattr(block, "elem_id", None) for block in page.blocks.values()]
    own = [found for found in ids if found]
    assert all(found.startswith("hypernetworks_train_") for found in own)
    assert len(own) == len(set(own)) > 40
    assert capsys.readouterr().err == ""


@two_hosts
def test_the_lists_of_a_page_are_renewed(trainings: Any) -> None:
    """gradio gives each new page the lists of the webui's start; the page's script clicks."""
    from hypernetworks.ui.training.webui_tab import add

    with gr.Blocks(analytics_enabled=False) as page:
        add(trainings.made)
    by_id = {getattr(block, "elem_id", None): block for block in page.blocks.values()}
    trainings.made.folders.keep([str(trainings.images / "a cat.png")], "ink")
    a_network(trainings.webui.folder / "copied by hand.pt")

    refresh = by_id["hypernetworks_train_refresh"]._id
    (function,) = (each for each in page.fns.values() if each.targets == [(refresh, "click")])
    names = [block.elem_id.removeprefix("hypernetworks_train_") for block in function.outputs]
    assert names == ["key", "begin_with"]
    assert function.fn is not None
    of_folders, of_networks = function.fn()
    assert of_folders["choices"] == [("(none)", ""), ("ink (1 image)", "0:ink")]
    assert of_networks["choices"][1:] == ["copied by hand"]
    assert "value" not in {**of_folders, **of_networks}, "what is chosen stays so"


def test_under_gradio_3_a_folder_is_chosen_by_its_label(
    trainings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lists show a pair of label and key as it would be written in Python, and send that."""
    from hypernetworks.ui.training import form as module_of_form
    from hypernetworks.ui.training.webui_tab import add

    monkeypatch.setattr(module_of_form, "HAS_LABELS", False)
    kept = trainings.made.folders.keep([str(trainings.images / "a cat.png")], "ink")
    with gr.Blocks(analytics_enabled=False) as page:
        add(trainings.made)
    by_id = {getattr(block, "elem_id", None): block for block in page.blocks.values()}
    shown = [label for label, _ in by_id["hypernetworks_train_key"].choices]
    assert shown == ["(none)", "ink (1 image)"]

    start = by_id["hypernetworks_train_start"]._id
    (function,) = (each for each in page.fns.values() if each.targets == [(start, "click")])
    entered = {**vars(FormValues(name="sepia")), **trainings.made.preset("style")}
    of_fields = [block.elem_id.removeprefix("hypernetworks_train_") for block in function.inputs]
    assert function.fn is not None
    for chosen in ("ink (1 image)", "(none)"):
        values = {**entered, "key": chosen, "upload": None}
        function.fn(*(values[name] for name in of_fields))
    (order,) = trainings.orders
    assert read(order.command[3:]).pictures == [kept]


def test_a_tab_that_cannot_be_built_costs_a_line(
    fake_webui: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def half(form: Any) -> None:
        with gr.Row():
            raise ZeroDivisionError

    monkeypatch.setattr("hypernetworks.ui.training.form.Form.second", half)
    ((tab, _, _),) = registration.ui_tabs()
    with gr.Blocks(analytics_enabled=False) as page:
        tab.render()
        later = gr.Markdown("the webui's own")
    assert later in page.children, "the page goes on where the tab was"
    assert "could not be built" in capsys.readouterr().err
