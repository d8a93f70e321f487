"""The directions between the rooms of the house, read off the imports; and that importing does no work."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "hypernetworks"

CORE = {"engine", "errors", "files", "library", "patching", "progress", "prompts", "training"}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "progress": set(),
    "engine": {"errors"},
    "engine.multiplier": {"errors"},
    "files": {"engine", "errors"},
    "prompts": {"errors", "engine.multiplier"},
    "library": {"files", "engine", "errors"},
    "patching": {"engine", "errors"},
    "training": {"engine", "files", "errors"},
    "hosts": {*CORE, "ui"},
    "miniature": {*CORE, "hosts"},
    "ui": CORE,
    "studio": {*CORE, "hosts", "ui", "miniature"},
    "cli": {*CORE, "hosts", "studio", "miniature", "cli_create", "cli_train"},
    "cli_create": {*CORE, "cli_values"},
    "cli_train": {*CORE, "hosts", "cli", "cli_create", "cli_values"},
    "cli_values": set(),
    "__main__": {"cli"},
    "__init__": CORE,
}
"""What each room may import of this package. On top sit ``studio``, ``cli`` and the webui's scripts."""
FOREIGN: dict[str, set[str]] = {
    "errors": set(),
    "progress": set(),
    "prompts": set(),
    "engine.multiplier": set(),
    "engine": {"torch"},
    "files": {"torch", "safetensors", "PIL"},
    "patching": {"torch"},
    "__init__": set(),
}
"""Third parties, where the list is closed."""
ONLY_IN: dict[str, set[str]] = {
    "diffusers": {"hosts", "miniature"},
    "transformers": {"hosts", "miniature"},
    "gradio": {"ui", "studio"},
    "modules": {"hosts"},
    "modules_forge": {"hosts"},
    "backend": {"hosts"},
    "ldm": {"hosts"},
    "ldm_patched": {"hosts"},
    "sgm": {"hosts"},
}
"""Third parties that a few rooms may import."""


def imported(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Full dotted names of all that a module imports, wherever the import stands."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = [*package[: len(package) - node.level + 1]] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    """``hypernetworks.engine.stack.Stack`` is in ``engine``; :mod:`.multiplier` is a room of its own."""
    parts = module.split(".")[1:]
    if parts[:2] == ["engine", "multiplier"]:
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


MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / PACKAGE).rglob("*.py"))


@pytest.mark.parametrize("path", MODULES)
def test_imports_go_in_the_allowed_direction(path: str) -> None:
    parts = list(Path(path).with_suffix("").parts)
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    assert room_of(module) in ROOMS, f"{path} is in no known room"
    assert offences((ROOT / path).read_text(), module, is_package) == []


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
        (
            "hypernetworks.training.loop",
            "if TYPE_CHECKING:\n    from transformers import CLIPTextModel",
        ),
        ("hypernetworks.ui.tab", "from ..hosts.diffusers import Painter"),
        ("hypernetworks.hosts.webui", "import gradio"),
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
            "hypernetworks.hosts.webui",
            "from modules import shared\nimport diffusers\nfrom ..prompts import parse",
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
    code = "import sys, hypernetworks as hn; print(hn.parse('a <hypernet:ink:0.5>')[0], 'torch' in sys.modules)"
    assert python(code, "-W", "error") == ("a  False\n", "")


def test_everything_public_works_without_webui_gradio_and_diffusers() -> None:
    code = """
import sys
for name in ("gradio", "diffusers", "transformers", "modules", "PIL"):
    sys.modules[name] = None
from hypernetworks import *
import hypernetworks as hn
import hypernetworks.training
print(read is hn.read, apply.__module__, all(getattr(hn, name) is not None for name in hn.__all__))
"""
    assert python(code)[0] == "True hypernetworks.patching.handle True\n"
