"""The directions between the rooms of the house, read off the imports; and that importing does no
work."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = "hypernetworks"

CORE = {
    "conversion",
    "devices",
    "ending",
    "console",
    "engine",
    "errors",
    "files",
    "library",
    "patching",
    "progress",
    "prompts",
    "training",
}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "first_use": set(),
    "console": set(),
    "progress": {"console"},
    "ending": set(),
    "devices": {"errors"},
    "engine": {"errors"},
    "engine.multiplier": {"errors"},
    "files": {"engine", "errors"},
    "prompts": {"errors", "engine.multiplier"},
    "library": {"files", "engine", "errors"},
    "patching": {"engine", "errors"},
    "training": {"devices", "engine", "files", "errors", "first_use"},
    "conversion": {"devices", "engine", "files", "errors"},
    "hosts": CORE,
    "hosts.webui": {*CORE, "hosts", "ui"},
    "hosts.diffusers": {*CORE, "hosts"},
    "hosts.comfyui": {*CORE, "hosts"},
    "miniature": {*CORE, "hosts.diffusers"},
    "ui": CORE,
    "studio": {*CORE, "hosts", "hosts.diffusers", "ui", "miniature"},
    "cli": {*CORE, "hosts", "hosts.diffusers", "studio", "miniature"},
    "__main__": {"cli"},
    "installing": {"__version__", "console"},
    "__init__": {*CORE, "first_use"},
}
"""What each room may import of this package. On top sit ``studio``, ``cli`` and the webui's
scripts.

``hosts`` is what all hosts share; each host has a room of its own, with walls between them.
"""
NESTED = ("engine.multiplier", "hosts.webui", "hosts.diffusers", "hosts.comfyui")
"""Rooms inside of others."""
BENEATH_THE_MULTIPLIER = ("engine.schedules", "engine.blocks")
"""Files of the same kind as ``engine.multiplier``: plain numbers, which the prompts may use."""
FOREIGN: dict[str, set[str]] = {
    "errors": set(),
    "first_use": set(),
    "progress": set(),
    "ending": set(),
    "devices": {"torch", "torch_directml"},
    "prompts": set(),
    "engine.multiplier": set(),
    "engine": {"torch", "triton"},
    "files": {"torch", "safetensors", "PIL"},
    "patching": {"torch"},
    "conversion": {"torch"},
    "__init__": set(),
    "installing": set(),
}
"""Third parties, where the list is closed."""
WEBUI = {"hosts.webui"}
COMFYUI = {"hosts.comfyui"}
ONLY_IN: dict[str, set[str]] = {
    "diffusers": {"hosts.diffusers", "miniature"},
    "transformers": {"hosts.diffusers", "miniature"},
    "gradio": {"ui", "studio"},
    "triton": {"engine"},
    "modules": WEBUI,
    "modules_forge": WEBUI,
    "backend": WEBUI,
    "ldm": WEBUI,
    "ldm_patched": WEBUI,
    "sgm": WEBUI,
    "comfy": COMFYUI,
    "comfy_api": COMFYUI,
    "nodes": COMFYUI,
    "folder_paths": COMFYUI,
    "server": COMFYUI,
}
"""Third parties that a few rooms may import."""


@cache
def imported(source: str, module: str, is_package: bool = False) -> list[str]:
    """Full dotted names of all that a module imports, wherever the import stands."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = [*package[: len(package) - node.level + 1]] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names


def room_of(module: str) -> str:
    """``hypernetworks.engine.stack.Stack`` is in ``engine``; :data:`NESTED` rooms are their own."""
    parts = module.split(".")[1:]
    nested = ".".join(parts[:2])
    if nested in NESTED:
        return nested
    if nested in BENEATH_THE_MULTIPLIER:
        return "engine.multiplier"
    return parts[0] if parts else "__init__"


def offences(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports of a module that its room may not make."""
    room, found = room_of(module), []
    for name in imported(source, module, is_package):
        top = name.split(".")[0]
        if top == PACKAGE:
            target = room_of(name)
            within = target == room or (room == "engine" and target == "engine.multiplier")
            allowed = ROOMS[room] | ({"engine.multiplier"} if "engine" in ROOMS[room] else set())
            if not within and target not in allowed and name.count(".") > 0:
                found.append(name)
        elif top not in sys.stdlib_module_names and (
            top not in FOREIGN.get(room, {top}) or room not in ONLY_IN.get(top, {room})
        ):
            found.append(name)
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, however far round (Tarjan's algorithm)."""
    number, lowest, stack, found = dict[str, int](), dict[str, int](), list[str](), []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)

        for other in sorted(graph[module]):
            if other not in number:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], number[other])

        if lowest[module] == number[module]:
            group = stack[stack.index(module) :]
            del stack[-len(group) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(graph):
        if module not in number:
            visit(module)
    return found


def module_of(path: str) -> tuple[str, bool]:
    """The dotted name of a file, and whether it is a package's ``__init__``."""
    parts = list(Path(path).with_suffix("").parts)
    is_package = parts[-1] == "__init__"
    return ".".join(parts[:-1] if is_package else parts), is_package


def import_graph() -> dict[str, set[str]]:
    """Module -> the modules of this package that it imports, wherever the import stands."""
    modules = {module: (path, pk) for path in MODULES for module, pk in [module_of(path)]}
    graph: dict[str, set[str]] = {}
    for module, (path, is_package) in modules.items():
        source = (ROOT / path).read_text(encoding="utf-8")
        names = imported(source, module, is_package)
        found = {name if name in modules else name.rpartition(".")[0] for name in names}
        graph[module] = (found & set(modules)) - {module}
    return graph


MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / PACKAGE).rglob("*.py"))


def test_imports_go_in_the_allowed_direction() -> None:
    found = {}
    for path in MODULES:
        module, is_package = module_of(path)
        assert room_of(module) in ROOMS, f"{path} is in no known room"
        found[path] = offences((ROOT / path).read_text(encoding="utf-8"), module, is_package)
    assert len(found) > 200
    assert not any(found.values()), {path: names for path, names in found.items() if names}


def test_no_two_files_import_each_other_however_far_round() -> None:
    assert circles(import_graph()) == []


def test_circles_are_noticed() -> None:
    graph = import_graph()
    assert circles(graph) == []
    assert graph["hypernetworks.patching.handle"], "the graph holds the imports"

    graph["hypernetworks.errors"].add("hypernetworks.patching.handle")
    (group,) = circles(graph)
    assert {"hypernetworks.errors", "hypernetworks.patching.handle"} <= set(group)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hypernetworks.engine.stack", "from ..files import read"),
        ("hypernetworks.engine.stack", "import hypernetworks.patching.handle"),
        ("hypernetworks.engine.stack", "import safetensors"),
        ("hypernetworks.engine.multiplier", "import torch"),
        ("hypernetworks.engine.multiplier", "from .stack import Stack"),
        ("hypernetworks.files.reading", "from hypernetworks.library import Library"),
        ("hypernetworks.prompts.tags", "from ..engine.network import Hypernetwork"),
        ("hypernetworks.prompts.tags", "def f():\n    import torch"),
        ("hypernetworks.patching.handle", "import diffusers"),
        ("hypernetworks.patching.handle", "from .. import files"),
        ("hypernetworks.library.folders", "from ..training.loop import train"),
        ("hypernetworks.training.loop", "from ..patching import apply"),
        ("hypernetworks.conversion.lora", "from ..patching import apply"),
        ("hypernetworks.conversion.lora", "import diffusers"),
        ("hypernetworks.engine.stack", "from ..conversion import to_lora"),
        (
            "hypernetworks.training.loop",
            "if TYPE_CHECKING:\n    from transformers import CLIPTextModel",
        ),
        ("hypernetworks.ui.tab", "from ..hosts.diffusers import Painter"),
        ("hypernetworks.hosts.webui", "import gradio"),
        ("hypernetworks.hosts.webui.batch", "import diffusers"),
        ("hypernetworks.hosts.webui.batch", "from transformers import CLIPTextModel"),
        ("hypernetworks.hosts.webui.batch", "from ..diffusers import Painter"),
        ("hypernetworks.hosts.webui.batch", "from ..diffusers.samplers import SAMPLERS"),
        ("hypernetworks.hosts.webui.batch", "def f():\n    from .. import diffusers"),
        ("hypernetworks.hosts.diffusers.pipeline", "from modules import shared"),
        ("hypernetworks.hosts.diffusers.pipeline", "from ..webui import host"),
        ("hypernetworks.hosts.diffusers.pipeline", "from ...ui import panel"),
        ("hypernetworks.hosts.fit", "from .webui.host import tell"),
        ("hypernetworks.hosts.fit", "import diffusers"),
        ("hypernetworks.hosts.fit", "import comfy.ops"),
        ("hypernetworks.hosts.webui.batch", "import folder_paths"),
        ("hypernetworks.hosts.diffusers.pipeline", "from ..comfyui import sampling"),
        ("hypernetworks.hosts.comfyui.sampling", "from modules import shared"),
        ("hypernetworks.hosts.comfyui.sampling", "from ..webui import host"),
        ("hypernetworks.hosts.comfyui.sampling", "from ...ui import panel"),
        ("hypernetworks.studio.page", "from ..hosts.webui import host"),
        ("hypernetworks.training.loop", "from ..hosts.resolving import Use"),
        ("hypernetworks.library.folders", "from modules import shared"),
        ("hypernetworks.cli", "import gradio"),
    ],
)
def test_offences_are_noticed(module: str, source: str) -> None:
    assert len(offences(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "hypernetworks.prompts.tags",
            "import re\nfrom ..engine.multiplier import Multiplier\nfrom .editing import x",
        ),
        (
            "hypernetworks.engine.stack",
            "import torch\nfrom .multiplier import Schedule\nfrom ..errors import TagError",
        ),
        (
            "hypernetworks.library.folders",
            "from ..files import read\nfrom ..engine.network import Hypernetwork",
        ),
        (
            "hypernetworks.hosts.webui.batch",
            "from modules import shared\nfrom ..resolving import Use\nfrom ...prompts import parse",
        ),
        ("hypernetworks.studio.page", "import gradio as gr\nfrom ..hosts.diffusers import Painter"),
    ],
)
def test_allowed_imports_are_allowed(module: str, source: str) -> None:
    assert offences(source, module) == []


def python(code: str, *options: str) -> tuple[str, str]:
    """What a fresh interpreter prints to its two streams; it must end well."""
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    return done.stdout, done.stderr


HEAVY = ("torch", "numpy", "gradio", "diffusers", "transformers", "safetensors", "PIL")


def test_importing_loads_and_prints_nothing() -> None:
    assert python("import hypernetworks", "-W", "error") == ("", "")
    code = f"import sys, hypernetworks; print([name for name in {HEAVY} if name in sys.modules])"
    assert python(code, "-W", "error") == ("[]\n", "")


def test_tags_need_no_torch() -> None:
    code = (
        "import sys, hypernetworks as hn; print(hn.parse('a <hypernet:ink:0.5>')[0], 'torch' in "
        "sys.modules)"
    )
    assert python(code, "-W", "error") == ("a  False\n", "")


def test_everything_public_works_without_webui_gradio_and_diffusers() -> None:
    code = """
import sys
for name in ("gradio", "diffusers", "transformers", "modules", "PIL"):
    sys.modules[name] = None
from hypernetworks import *
import hypernetworks as hn
import hypernetworks.training as training
there = [getattr(home, name) is not None for home in (hn, training) for name in home.__all__]
print(read is hn.read, apply.__module__, all(there))
"""
    assert python(code)[0] == "True hypernetworks.patching.applying True\n"
