"""Webuis never import the ``__init__.py`` of an extension's folder, which is for ComfyUI alone.

``HYPERNETWORKS_WEBUI_SOURCES`` names a folder with ``a1111/``, ``forge/``, ``reforge/``,
``classic/``, ``sdnext/``, or some of them; without it, everything here is skipped.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

SOURCES = Path(os.environ.get("HYPERNETWORKS_WEBUI_SOURCES", ""))
WEBUIS = ("a1111", "forge", "reforge", "classic", "sdnext")
IMPORTING = ("load_module", "exec_module", "import_module", "spec_from_file_location", "__import__")
"""Functions that run a file."""
LOADERS = {
    "extensions.py": set[str](),
    "script_loading.py": {"path", "preload_script", "module_spec", "module", "full_path"},
    "scripts.py": {"scriptfile.path", "script.filename"},
    "scripts_manager.py": {"scriptfile.path", "script.filename"},
}
"""What may be run there: scripts of a list, and ``preload.py``; the rest is inside of a loader."""


def sources(webui: str) -> list[Path]:
    folder = SOURCES / webui / "modules"
    if not os.environ.get("HYPERNETWORKS_WEBUI_SOURCES") or not folder.is_dir():
        pytest.skip(f"HYPERNETWORKS_WEBUI_SOURCES has no {webui}")
    return [folder / name for name in LOADERS if (folder / name).is_file()]


def calls(path: Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func).split(".")[-1]


@pytest.mark.parametrize("webui", WEBUIS)
def test_only_scripts_and_preload_are_run(webui: str) -> None:
    for path in sources(webui):
        run = {
            ast.unparse(
                call.args[-1] if name_of(call) == "spec_from_file_location" else call.args[0]
            )
            for call in calls(path)
            if name_of(call) in IMPORTING and call.args
        }
        assert run <= LOADERS[path.name], f"{path.name} runs {run}"


@pytest.mark.parametrize("webui", WEBUIS)
def test_the_list_of_scripts_is_of_the_scripts_folder(webui: str) -> None:
    """``list_files`` does not go into the folder above."""
    found = [
        ast.unparse(call.args[0])
        for path in sources(webui)
        for call in calls(path)
        if name_of(call) == "list_scripts"
    ]
    assert "'scripts'" in found
    assert all("scripts" in folder or "modules" in folder for folder in found)
    (listing,) = [
        node
        for path in sources(webui)
        if path.name == "extensions.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == "list_files"
    ]
    assert "os.path.join(self.path, subdir)" in ast.unparse(listing)
    assert "__init__" not in ast.unparse(listing)
