"""What a webui's start does because of this extension. It imports nothing that the webui had not
imported itself, and of our own code only what is needed before the first click (read off the
imports); and it doesn't wait for the model.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from fake_webui import FakeWebui
from torch import nn

from hypernetworks.hosts.webui import host, registration

ROOT = Path(__file__).parents[3]
OURS = "hypernetworks"
SCRIPTS = (f"{OURS}.hosts.webui.registration", f"{OURS}.ui.panel")
"""Loaded with the webui's scripts."""
PAGE = (
    f"{OURS}.hosts.webui.training.tab",
    f"{OURS}.hosts.webui.training.routes",
    f"{OURS}.ui.training.webui_tab",
)
"""Loaded when the page and the routes are made: the tab for training."""
THE_WEBUIS = {
    *("torch", "torch.nn.functional", "gradio"),
    *("starlette.concurrency", "starlette.requests", "starlette.responses"),
}
"""All that may be imported besides Python's own modules: each webui's start imports these."""


def source_of(module: str) -> Path | None:
    """The file of a module of ours."""
    folder = ROOT.joinpath(*module.split("."))
    found = (folder / "__init__.py", folder.with_suffix(".py"))
    return next((path for path in found if path.is_file()), None)


def at_once(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run when a module is loaded: not those of functions and type checkers."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_once(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for part in ("body", "handlers", "orelse", "finalbody"):
                yield from at_once(getattr(node, part, []))


def named(node: ast.Import | ast.ImportFrom, package: list[str]) -> Iterator[str]:
    """The modules that an import may load."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    start = package[: len(package) - node.level + 1] if node.level else []
    base = ".".join([*start, *([node.module] if node.module else [])])
    yield base
    if base.split(".")[0] == OURS:
        yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def reached(*roots: str) -> tuple[set[str], set[str]]:
    """Our modules that are loaded by importing these, and the foreign ones that they ask for."""
    ours, foreign, waiting = set[str](), set[str](), list(roots)
    while waiting:
        module = waiting.pop()
        if module in ours or (path := source_of(module)) is None:
            continue

        ours.add(module)
        parts = module.split(".")
        waiting += [".".join(parts[:count]) for count in range(1, len(parts))]
        package = parts if path.name == "__init__.py" else parts[:-1]
        for node in at_once(ast.parse(path.read_text("utf-8")).body):
            for name in named(node, package):
                known = name.split(".")[0]
                if known == OURS:
                    waiting.append(name)
                elif known not in sys.stdlib_module_names:
                    foreign.add(name)
    return ours, foreign


def test_nothing_is_imported_that_the_webui_had_not_imported() -> None:
    assert reached(*SCRIPTS, *PAGE)[1] <= THE_WEBUIS


@pytest.mark.parametrize(("roots", "most"), [(SCRIPTS, 91), ((*SCRIPTS, *PAGE), 114)])
def test_the_start_stays_small(roots: tuple[str, ...], most: int) -> None:
    """Each module costs about a millisecond; raise the number only for what a start needs."""
    ours, _ = reached(*roots)
    assert len(ours) <= most


def test_the_trainer_waits_for_a_training() -> None:
    """It runs in a process of its own; the webui never needs more of it than the form does."""
    ours, _ = reached(*SCRIPTS, *PAGE)
    assert f"{OURS}.training.settings" in ours, "the form's fields are needed"
    parts = ("loop", "driving", "pictures", "forward", "validation", "records", "checkpoints")
    assert not ours & {f"{OURS}.training.{part}" for part in parts}
    assert not any(
        name.startswith((f"{OURS}.hosts.diffusers", f"{OURS}.patching")) for name in ours
    )


def test_what_is_read_off_the_imports() -> None:
    text = """
import json, torch.optim
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import diffusers
else:
    import one
try:
    from . import two
except ImportError:
    import three
class A:
    import four
def f():
    import five
"""
    package = [OURS, "hosts"]
    found = [name for node in at_once(ast.parse(text).body) for name in named(node, package)]
    assert "diffusers" not in found
    assert "five" not in found
    assert {"torch.optim", "one", f"{OURS}.hosts.two", "three", "four"} <= set(found)


class Loading(ModuleType):
    """A1111's ``modules.shared``: to ask for the model loads it, or waits until it is loaded."""

    @property
    def sd_model(self) -> object:
        raise AssertionError("the page would wait for the model")


def test_the_page_does_not_wait_for_the_model(
    fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = SimpleNamespace(sd_model=None, was_loaded_at_least_once=False)
    models = SimpleNamespace(model_data=data)
    monkeypatch.setitem(sys.modules, "modules.sd_models", models)  # type: ignore[arg-type]
    monkeypatch.setattr(fake_webui.shared, "__class__", Loading)
    registration.register()
    for callback in ("before_ui", "ui_tabs"):
        for add in fake_webui.module("script_callbacks").callback_map[callback]:
            assert add() != []
    assert capsys.readouterr().err == ""
    assert host.live_unet() is None

    unet = nn.Linear(1, 1)
    data.sd_model = SimpleNamespace(model=SimpleNamespace(diffusion_model=unet))
    assert host.live_unet() is unet


def test_the_webui_sees_at_once_whose_callbacks_they_are(
    fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks ``inspect.stack()``, which goes through all modules for each frame whose file is no
    module's: importlib's, and a script's."""
    callbacks, stacks = fake_webui.module("script_callbacks"), list[list[str]]()
    names = [name for name in vars(callbacks) if name.startswith("on_")]
    for name in names:
        monkeypatch.setattr(
            callbacks, name, lambda _: stacks.append([one.filename for one in inspect.stack(0)])
        )
    script = compile("register()", "a_script_is_no_module.py", "exec")
    exec(script, {"register": registration.register})

    assert len(stacks) == 8
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    for stack in stacks:
        assert stack[0] == __file__
        assert stack[1] == registration.__file__
        assert set(stack) <= files
