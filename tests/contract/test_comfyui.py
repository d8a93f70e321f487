"""Files that we write, loaded and computed by ComfyUI's own loader.

``HYPERNETWORKS_WEBUI_SOURCES`` names a folder with ``comfyui/``; without it, everything here is
skipped. The loader runs in a process of its own, as its modules have common names, and with
ComfyUI's own Python where ``comfyui/venv`` has one: it needs packages that this project doesn't.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hypernetworks as hn
from hypernetworks.engine.initialising import create_network
from hypernetworks.engine.structure import Structure

SOURCE = Path(os.environ.get("HYPERNETWORKS_WEBUI_SOURCES", ""), "comfyui")
VENV = SOURCE / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PYTHON = VENV if VENV.is_file() else Path(sys.executable)
LOADER = """
import sys, torch
sys.argv = sys.argv[:1]
from comfy_extras.nodes_hypernetwork import load_hypernetwork_patch
folder, names = sys.stdin.readline().strip(), sys.stdin.readline().split()
context = torch.load(folder + "/context.bin")
torch.save({n: load_hypernetwork_patch(f"{folder}/{n}.pt", 0.7)(0, context, context, {})[1:] for n in names},
           folder + "/comfyui.bin")
"""
ACTIVATIONS = ("linear", "relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid", "softsign", "mish")
"""Those that ComfyUI has."""

pytestmark = pytest.mark.skipif(
    not (SOURCE / "comfy_extras").is_dir(), reason="HYPERNETWORKS_WEBUI_SOURCES has no comfyui"
)


def test_comfyui_computes_what_our_files_say(tmp_path: Path) -> None:
    """With dropout in training as well, which is off in pictures there, too."""
    structures = {name: Structure((1, 2, 1), name, activate_output=False) for name in ACTIVATIONS}
    structures["output"] = Structure((1, 2, 1), "relu", activate_output=True)
    structures["dropout"] = Structure((1, 2, 1), "relu", activate_output=False, dropout=(0, 0.3, 0))
    structures["deep"] = Structure(
        (1, 2, 2, 1), "tanh", activate_output=False, dropout=(0, 0.3, 0.3, 0)
    )
    structures["norm"] = Structure((1, 2, 1), "linear", layer_norm=True)
    context = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))
    torch.save(context, tmp_path / "context.bin")
    ours = {}
    for number, (name, structure) in enumerate(structures.items()):
        network = create_network(
            name, structure, (16, 24), initialisation="XavierNormal", zero_last=False, seed=number
        )
        hn.write(network, tmp_path / f"{name}.pt")
        read = hn.read(tmp_path / f"{name}.pt")
        ours[name] = [context + 0.7 * read.pairs[16][side](context) for side in (0, 1)]
        assert not torch.allclose(ours[name][0], context, atol=1e-3)
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [str(PYTHON), "-c", LOADER],
        input=f"{tmp_path}\n{' '.join(structures)}\n",
        env=environment,
        cwd=SOURCE,
        capture_output=True,
        text=True,
        check=False,
    )
    lacking = re.search("No module named '(?!comfy)(.+?)'", done.stderr)
    if lacking:
        pytest.skip(f"ComfyUI's loader needs {lacking[1]}, and comfyui/venv has no Python")
    assert done.returncode == 0, done.stderr
    for name, theirs in torch.load(tmp_path / "comfyui.bin").items():
        for mine, other in zip(ours[name], theirs, strict=True):
            torch.testing.assert_close(other, mine, msg=lambda text, name=name: f"{name}: {text}")
