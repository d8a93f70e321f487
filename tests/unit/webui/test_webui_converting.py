"""*Convert…* in a card's editor."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conversion_cases import checkpoint, network, small_unet

import hypernetworks as hn
from hypernetworks.cli import main


@pytest.fixture
def ready(fake_webui: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A webui with a network, a selected checkpoint and a folder for LoRAs; commands run in this
    process."""
    webui = fake_webui
    webui.folder.mkdir(parents=True, exist_ok=True)
    hn.write(network("ink", 1), webui.folder / "ink.pt")
    base = checkpoint(tmp_path / "base.safetensors", small_unet())
    chosen = SimpleNamespace(filename=str(base))
    models: Any = SimpleNamespace(select_checkpoint=lambda: chosen)
    monkeypatch.setitem(sys.modules, "modules.sd_models", models)
    monkeypatch.setattr(importlib.import_module("modules"), "sd_models", models, raising=False)
    loras = tmp_path / "models" / "Lora"
    monkeypatch.setattr(webui.shared.cmd_opts, "lora_dir", str(loras), raising=False)
    return SimpleNamespace(webui=webui, loras=loras)


def in_this_process(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(command: list[str], **options: Any) -> Any:
        assert command[:3] == [sys.executable, "-m", "hypernetworks"]
        assert (Path(options["env"]["PYTHONPATH"].split(os.pathsep)[0]) / "hypernetworks").is_dir()
        code = main(command[3:])
        return SimpleNamespace(returncode=code, stderr=capsys.readouterr().err)

    return run


def test_a_card_becomes_a_lora_and_is_never_replaced(
    ready: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hypernetworks.hosts.webui.cards_tab import converting

    monkeypatch.setattr(subprocess, "run", in_this_process(capsys))
    assert "ink.safetensors is among the LoRAs" in converting.convert("ink")
    assert (ready.loras / "ink.safetensors").is_file()
    assert "exists" in converting.convert("ink")
    assert "is gone" in converting.convert("<b>")
    assert "<b>" not in converting.convert("<b>")


def test_what_stops_it_is_said(ready: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hypernetworks.hosts.webui.cards_tab import converting

    def slow(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("convert", 1)

    monkeypatch.setattr(subprocess, "run", slow)
    assert "could not be run" in converting.convert("ink")
    monkeypatch.setattr(sys.modules["modules.sd_models"], "select_checkpoint", lambda: None)
    assert "no checkpoint is selected" in converting.convert("ink")
    monkeypatch.delattr(ready.webui.shared.cmd_opts, "lora_dir")
    assert "no folder for LoRAs" in converting.convert("ink")
